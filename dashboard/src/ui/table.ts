export interface Column<Id extends string = string> {
  id: Id;
  label: string;
  /** Where the cells say what they are. */
  labelUnseen?: boolean;
  sortable?: boolean;
  /** Numbers are compared down a column. */
  numeric?: boolean;
  /** From what room on it is shown; always, if omitted. */
  from?: 'medium' | 'broad' | 'wide';
}

export interface Sorting {
  by: string;
  order: 'asc' | 'desc';
}

/** What a click on a column's header asks for. */
export function nextSorting(current: Sorting, column: string): Sorting {
  const order = current.by === column && current.order === 'asc' ? 'desc' : 'asc';
  return { by: column, order };
}
