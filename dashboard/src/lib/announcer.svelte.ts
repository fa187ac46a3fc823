// What screen readers say without the focus moving, and short notes for everybody.
interface Note {
  id: number;
  text: string;
}

const NOTE_MS = 6000;

let spoken = $state('');
const notes = $state<Note[]>([]);
let count = 0;

export const announcer = {
  get spoken(): string {
    return spoken;
  },
  get notes(): readonly Note[] {
    return notes;
  },
  /** Only for screen readers. */
  say(text: string): void {
    spoken = text;
  },
  /** Shown for a few seconds. Never the only place of something that matters. */
  note(text: string): void {
    const id = ++count;
    notes.push({ id, text });
    setTimeout(() => announcer.dismiss(id), NOTE_MS);
  },
  dismiss(id: number): void {
    const index = notes.findIndex((note) => note.id === id);
    if (index >= 0) notes.splice(index, 1);
  },
};
