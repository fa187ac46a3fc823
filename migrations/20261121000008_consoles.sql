-- Consoles: a row is one person's way to one server's console, from one address. It begins as a ticket, is held by a
-- connection, and can be taken up again for a while after that was lost.

create table consoles (
    id uuid primary key,
    server_id bigint not null references servers (id) on delete cascade,
    user_id bigint not null references users (id) on delete cascade,
    -- The token that asked for it and its login. No references: an access token is forgotten before its login ends, and
    -- whether either is still good is looked up, not inherited.
    token_id uuid not null,
    session_id uuid,
    -- The client's address.
    address text not null,
    -- The SHA-256 of the ticket that opens it; null once it was used.
    ticket bytea unique check (length(ticket) = 32),
    ticket_until timestamptz,
    -- When it was first connected: its time is counted from here, whatever came in between.
    opened_at timestamptz,
    -- How often it was connected: the last one holds it.
    connection integer not null default 0,
    -- How long the process that holds it answers for it; null: nobody does.
    alive_until timestamptz,
    created_at timestamptz not null default now(),
    check ((ticket is null) = (ticket_until is null))
);
create index consoles_user on consoles (user_id);
create index consoles_server on consoles (server_id);

-- Who holds something open on a server hears of it when the server changes hands, stops, is suspended or goes.
create function notify_server_changed() returns trigger language plpgsql as $$
begin
    perform pg_notify('server_changed', new.id::text);
    return null;
end $$;
create trigger servers_changed after update of user_id, status, deleted_at, suspended_at on servers
    for each row when ((old.user_id, old.status, old.deleted_at, old.suspended_at)
        is distinct from (new.user_id, new.status, new.deleted_at, new.suspended_at))
    execute function notify_server_changed();
