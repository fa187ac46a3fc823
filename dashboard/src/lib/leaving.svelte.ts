/** The question whether to leave a page with changes that are not saved. */
let resolve = $state.raw<((leave: boolean) => void) | null>(null);

export const leaving = {
  get isAsked(): boolean {
    return resolve !== null;
  },
  ask(): Promise<boolean> {
    resolve?.(false);
    return new Promise((answer) => {
      resolve = answer;
    });
  },
  answer(leave: boolean): void {
    resolve?.(leave);
    resolve = null;
  },
};
