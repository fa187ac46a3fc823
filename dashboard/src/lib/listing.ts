// Filters and sorting of the list of servers, as they are in the address.
import { compareText } from './format';
import type { ServerRow } from './servers';
import { URGENCY, isServerStatus, statusOf, type ServerStatus } from './states';
import type { Sorting } from '../ui/table';

export interface Filters {
  name: string;
  status: ServerStatus | '';
  tariff: string;
  /** Everybody's servers, for staff and resellers. */
  all: boolean;
  page: number;
  sorting: Sorting;
}

export function readFilters(query: URLSearchParams): Filters {
  const status = query.get('status') ?? '';
  const page = Number(query.get('page') ?? 1);
  return {
    name: query.get('name') ?? '',
    status: isServerStatus(status) ? status : '',
    tariff: query.get('tariff') ?? '',
    all: query.get('all') === 'true',
    page: Number.isInteger(page) && page > 0 ? page : 1,
    sorting: { by: query.get('sort') ?? 'name', order: query.get('order') === 'desc' ? 'desc' : 'asc' },
  };
}

/** By what the service can sort. */
export function isServiceSort(column: string): column is 'id' | 'name' | 'status' | 'createdAt' {
  return ['id', 'name', 'status', 'createdAt'].includes(column);
}

type Value = string | number | null;

const VALUES: Readonly<Record<string, (row: ServerRow) => Value>> = {
  name: (row) => row.name,
  status: (row) => URGENCY[statusOf(row.status).meaning],
  address: (row) => row.ipAddress ?? null,
  tariff: (row) => row.tariff.name,
  size: (row) => row.memory,
  cpu: (row) => row.figures?.cpu ?? null,
  memory: (row) => row.figures?.memory ?? null,
  disk: (row) => row.figures?.disk ?? null,
  seen: (row) => (row.figures ? -row.figures.seenAt : null),
  createdAt: (row) => row.createdAt,
  updatedAt: (row) => row.updatedAt,
};

export function filterRows(rows: readonly ServerRow[], { name, status, tariff }: Filters): ServerRow[] {
  const wanted = name.trim().toLowerCase();
  return rows.filter(
    (row) =>
      (!wanted ||
        row.name.toLowerCase().includes(wanted) ||
        row.ipAddresses.some((address) => address.includes(wanted))) &&
      (!status || row.status === status) &&
      (!tariff || String(row.tariffId) === tariff),
  );
}

/** What is not known comes last, whichever way it is sorted; equal rows are in the order of their names. */
export function sortRows(rows: readonly ServerRow[], { by, order }: Sorting): ServerRow[] {
  const value = VALUES[by] ?? ((row: ServerRow) => row.name);
  const sign = order === 'asc' ? 1 : -1;
  return rows.toSorted((one, other) => {
    const [left, right] = [value(one), value(other)];
    if (left === null || right === null) return Number(left === null) - Number(right === null);
    const difference =
      typeof left === 'number' && typeof right === 'number' ? left - right : compareText(String(left), String(right));
    return sign * difference || compareText(one.name, other.name) || one.id - other.id;
  });
}
