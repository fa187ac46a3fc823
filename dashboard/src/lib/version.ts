/** Whether the service now serves another build than this page is of: its files are not there any more. */
export async function isNewVersion(): Promise<boolean> {
  const ours = document.querySelector<HTMLScriptElement>('script[type="module"]')?.getAttribute('src');
  try {
    const response = await fetch('/', { cache: 'no-store' });
    return response.ok && ours !== null && ours !== undefined && !(await response.text()).includes(ours);
  } catch {
    return false;
  }
}
