-- What must happen whatever is under way waits behind it: at most one operation a server, which becomes `queued` when
-- the one at work has ended.
alter table operations drop constraint operations_state_check;
alter table operations add constraint operations_state_check check (state in
    ('waiting', 'queued', 'running', 'undoing', 'succeeded', 'failed', 'stuck'));
create unique index operations_one_waiting on operations (server_id) where state = 'waiting';
