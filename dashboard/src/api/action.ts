/**
 * The `Idempotency-Key` of something that a user does. A retry of the same request has the same key, so that it is
 * carried out once however often it is sent; a changed request is another one to the service, and gets a new key.
 */
export class Action {
  #key = '';
  #request: string | undefined;

  /** The header for this request. */
  headers(body?: unknown): { 'Idempotency-Key': string } {
    const request = JSON.stringify(body) ?? '';
    if (this.#request !== request) {
      this.#request = request;
      this.#key = randomKey();
    }
    return { 'Idempotency-Key': this.#key };
  }

  /** It was carried out: doing the same once more is a new action. */
  done(): void {
    this.#request = undefined;
  }
}

/** Not `randomUUID`, which browsers withhold from pages that came over plain HTTP. */
function randomKey(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, '0')).join('');
}
