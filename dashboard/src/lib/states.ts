import type { components } from '../api/schema';
import { m } from '../i18n/texts/messages';

/** What a state means to people; each has an icon, a colour and a word. */
export type Meaning = 'running' | 'busy' | 'stopped' | 'attention' | 'failed';

export type ServerStatus = components['schemas']['ServerState'];

export const STATUSES: Readonly<Record<ServerStatus, { meaning: Meaning; word: () => string }>> = {
  running: { meaning: 'running', word: m.status_running },
  creating: { meaning: 'busy', word: m.status_creating },
  starting: { meaning: 'busy', word: m.status_starting },
  stopping: { meaning: 'busy', word: m.status_stopping },
  restarting: { meaning: 'busy', word: m.status_restarting },
  resizing: { meaning: 'busy', word: m.status_resizing },
  restoring: { meaning: 'busy', word: m.status_restoring },
  reinstalling: { meaning: 'busy', word: m.status_reinstalling },
  deleting: { meaning: 'busy', word: m.status_deleting },
  stopped: { meaning: 'stopped', word: m.status_stopped },
  deleted: { meaning: 'stopped', word: m.status_deleted },
  paused: { meaning: 'attention', word: m.status_paused },
  unknown: { meaning: 'attention', word: m.status_unknown },
  failed: { meaning: 'failed', word: m.status_failed },
};

/** A newer service may know statuses that we don't. */
export function isServerStatus(text: string): text is ServerStatus {
  return Object.hasOwn(STATUSES, text);
}

export function statusOf(text: string): { meaning: Meaning; word: () => string } {
  return isServerStatus(text) ? STATUSES[text] : { meaning: 'attention', word: () => text };
}

const KINDS: Readonly<Record<string, () => string>> = {
  create: m.operation_create,
  start: m.operation_start,
  stop: m.operation_stop,
  restart: m.operation_restart,
  resize: m.operation_resize,
  snapshot: m.operation_snapshot,
  rollback: m.operation_rollback,
  delete_snapshot: m.operation_delete_snapshot,
  reinstall: m.operation_reinstall,
  delete: m.operation_delete,
  password: m.operation_password,
};

export function operationWord(kind: string): string {
  return KINDS[kind]?.() ?? kind;
}

/** For lists: what needs somebody comes first. */
export const URGENCY: Readonly<Record<Meaning, number>> = { failed: 0, attention: 1, busy: 2, running: 3, stopped: 4 };
