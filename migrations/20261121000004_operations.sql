-- The durable operations engine. See src/operations.

create table operations (
    id uuid primary key,
    server_id bigint not null references servers (id),
    kind text not null,
    state text not null check (state in ('queued', 'running', 'undoing', 'succeeded', 'failed', 'stuck')),
    -- The step at work, counted from 0; when undoing, the step being undone.
    step_index integer not null default 0,
    step text not null default '',
    -- Whether it is on its way back; kept while stuck, so that it can be taken up again.
    undoing boolean not null default false,
    -- The workflow's own durable state.
    data jsonb not null,
    progress smallint not null default 0 check (progress between 0 and 100),
    -- For the customer; while running, why it is being retried.
    error_code text,
    error_message text,
    -- The host's own words, for the provider.
    error_detail text,
    -- Tries of the present step.
    attempts integer not null default 0,
    -- The host's own id of its latest task.
    host_task text,
    -- Not to be worked on before.
    run_at timestamptz not null default now(),
    -- When the steps must be done; past it the operation is undone, and an undo becomes stuck.
    deadline timestamptz not null,
    lease_owner uuid,
    lease_until timestamptz,
    -- Grows with every claim; every write of a worker names the one it holds.
    fence bigint not null default 0,
    -- Who asked for it.
    user_id bigint references users (id),
    created_at timestamptz not null default now(),
    started_at timestamptz,
    ended_at timestamptz,
    updated_at timestamptz not null default now()
);

-- One operation at a time per server. A stuck one still holds its server: a person must look first.
create unique index operations_one_per_server on operations (server_id)
    where state in ('queued', 'running', 'undoing', 'stuck');
create index operations_due on operations (run_at) where state in ('queued', 'running', 'undoing');
create index operations_server on operations (server_id, created_at);

create table operation_log (
    id bigint generated always as identity primary key,
    operation_id uuid not null references operations (id) on delete cascade,
    at timestamptz not null default now(),
    level text not null check (level in ('info', 'warn', 'error')),
    step text not null,
    message text not null
);
create index operation_log_operation on operation_log (operation_id, id);
