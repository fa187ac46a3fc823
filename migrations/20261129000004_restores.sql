-- How a restored database is noticed: it has gone back behind what processes remember of it. See src/restores.

-- The one row of this installation.
create table installation (
    single boolean primary key default true check (single),
    id uuid not null default gen_random_uuid(),
    -- Grows all the time while any process is alive.
    beats bigint not null default 0,
    beat_at timestamptz,
    -- The last time that nobody was alive for long: from the last beat to the next.
    silent_from timestamptz,
    silent_to timestamptz,
    -- When the database was last found to be an older state of itself, and of when that state was.
    restored_at timestamptz,
    restored_to timestamptz
);
insert into installation default values;

-- From when on it is known which of the host's guests no server goes with.
alter table hosts add column guests_known_at timestamptz;
