let closed = false;

/** Whether users can register themselves. Only the answer to an attempt says so, so it is offered until one is refused. */
export const registration = {
  get isClosed(): boolean {
    return closed;
  },
  close(): void {
    closed = true;
  },
};
