// Loaded before anything is drawn. Without a choice the system's colours apply, which the style sheet follows by itself.
try {
  const theme = localStorage.getItem('innkeeper-theme');
  if (theme === 'light' || theme === 'dark') document.documentElement.dataset.theme = theme;
} catch {
  // Storage is closed to us: the system's colours it is.
}
