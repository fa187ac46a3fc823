-- A value sealed with the master key, by which every process finds out at its start whether it has the right one.
create table key_check (
    only_row boolean primary key default true check (only_row),
    sealed bytea not null,
    sealed_at timestamptz not null default now()
);
