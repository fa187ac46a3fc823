let arrived = false;

export const arrival = {
  /** True once: for the first page that is shown after loading. */
  isFirst(): boolean {
    const first = !arrived;
    arrived = true;
    return first;
  },
};
