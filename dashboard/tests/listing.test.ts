import { describe, expect, it } from 'vitest';
import { filterRows, readFilters, sortRows } from '../src/lib/listing';
import type { ServerRow } from '../src/lib/servers';
import { nextSorting } from '../src/ui/table';

function row(id: number, name: string, more: Partial<ServerRow> = {}): ServerRow {
  return {
    id,
    name,
    status: 'running',
    ipAddress: null,
    ipAddresses: [],
    tariffId: 1,
    tariff: { id: 1, name: 'Small' },
    memory: 1024,
    createdAt: '2026-01-01T00:00:00Z',
    figures: null,
    operation: null,
    ...more,
  } as ServerRow;
}

const filters = (query: string) => readFilters(new URLSearchParams(query));
const ids = (rows: readonly ServerRow[]) => rows.map(({ id }) => id);
const figures = (cpu: number) => ({ cpu, memory: 0, disk: 0, memoryUsed: 0, diskUsed: 0, uptime: 0, seenAt: 0 });

describe('the list of servers', () => {
  it('reads its filters from the address, whatever is there', () => {
    expect(filters('name=web&status=running&sort=cpu&order=desc&page=2&all=true')).toEqual({
      name: 'web',
      status: 'running',
      tariff: '',
      all: true,
      page: 2,
      sorting: { by: 'cpu', order: 'desc' },
    });
    expect(filters('status=toString&page=-1&order=x')).toMatchObject({
      status: '',
      page: 1,
      sorting: { by: 'name', order: 'asc' },
    });
  });

  it('is filtered by part of a name or address, status and tariff', () => {
    const rows = [
      row(1, 'Web-1', { ipAddresses: ['192.0.2.7'] }),
      row(2, 'db', { status: 'stopped', tariffId: 2 }),
      row(3, 'веб'),
    ];
    expect(ids(filterRows(rows, filters('name=WEB')))).toEqual([1]);
    expect(ids(filterRows(rows, filters('name=192.0.2')))).toEqual([1]);
    expect(ids(filterRows(rows, filters('name=Ве')))).toEqual([3]);
    expect(ids(filterRows(rows, filters('status=stopped')))).toEqual([2]);
    expect(ids(filterRows(rows, filters('tariff=2')))).toEqual([2]);
  });

  it('has what is unknown last, both ways', () => {
    const rows = [row(1, 'a'), row(2, 'b', { figures: figures(0.1) }), row(3, 'c', { figures: figures(0.9) })];
    expect(ids(sortRows(rows, { by: 'cpu', order: 'asc' }))).toEqual([2, 3, 1]);
    expect(ids(sortRows(rows, { by: 'cpu', order: 'desc' }))).toEqual([3, 2, 1]);
  });

  it('has first what needs somebody', () => {
    const rows = [
      row(1, 'a'),
      row(2, 'b', { status: 'stopped' }),
      row(3, 'c', { status: 'failed' }),
      row(4, 'd', { status: 'creating' }),
    ];
    expect(ids(sortRows(rows, { by: 'status', order: 'asc' }))).toEqual([3, 4, 1, 2]);
  });

  it('turns its order round at the second click', () => {
    const first = nextSorting({ by: 'name', order: 'asc' }, 'cpu');
    expect([first, nextSorting(first, 'cpu')]).toEqual([
      { by: 'cpu', order: 'asc' },
      { by: 'cpu', order: 'desc' },
    ]);
  });
});
