import { createSubscriber } from 'svelte/reactivity';

const ticking = createSubscriber((update) => {
  const timer = setInterval(update, 1000);
  return () => clearInterval(timer);
});

/** Milliseconds that never jump, unlike the time of day; components that read it are redrawn every second. */
export function now(): number {
  ticking();
  return performance.now();
}
