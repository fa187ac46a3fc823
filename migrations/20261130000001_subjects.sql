-- Operations, scopes and audit entries are about a subject, a kind and an id, instead of a server. An operation's lane,
-- and whose turn it takes, are written when it is enqueued. Older programs don't know these columns: stop them all
-- first; they can't be started again afterwards.

alter table operations
    -- A number for people, beside the id.
    add column number bigint generated always as identity,
    add column subject_kind text,
    add column subject_id text,
    -- What limits how many run at a time: for a server its host.
    add column lane text,
    -- The account whose turn it takes; null: the provider's.
    add column account_id bigint;
update operations o set subject_kind = 'server', subject_id = s.id::text, lane = 'host:' || s.host_id,
    account_id = s.user_id
from servers s where s.id = o.server_id;
alter table operations
    alter column subject_kind set not null,
    alter column subject_id set not null,
    alter column lane set not null,
    add constraint operations_number unique (number);

-- One operation at a time per subject, and one that waits behind it.
create unique index operations_one_per_subject on operations (subject_kind, subject_id)
    where state in ('queued', 'running', 'undoing', 'stuck');
create unique index operations_one_waiting_per_subject on operations (subject_kind, subject_id)
    where state = 'waiting';
create index operations_subject on operations (subject_kind, subject_id, created_at);
-- Drops its indexes too.
alter table operations drop column server_id;

-- Lanes of hosts and the like, which may have changed while no process ran: operations from before that time wait until
-- their lane was checked. A lane that is not here needs no check.
create table operation_lanes (
    lane text primary key,
    checked_at timestamptz
);
insert into operation_lanes select 'host:' || id, guests_known_at from hosts;

-- Scopes name their subject by its id as it is written everywhere.
update tokens set scopes = array(
    select regexp_replace(scope, ':server:\+?0*([1-9])', ':server:\1')
    from unnest(scopes) with ordinality as s (scope, place) order by place)
where exists (select from unnest(scopes) scope where scope ~ ':server:[+0]');

-- Audit entries name the subject that they are about: what owners see of others' actions.
drop view audit_entries;
alter table audit disable trigger audit_keep;
alter table audit add column about text;
update audit set about = 'server:' || server_id where server_id is not null;
alter table audit drop column server_id;
alter table audit enable trigger audit_keep;
create index audit_about on audit (about, at) where about is not null;
alter table audit_open add column about text;
update audit_open set about = 'server:' || server_id where server_id is not null;
alter table audit_open drop column server_id;

create or replace function audit_keep() returns trigger language plpgsql as $$
begin
    if tg_op = 'UPDATE' and old.ended_at is null and new.ended_at is not null
       and (new.id, new.at, new.user_id, new.role, new.token_id, new.address, new.request_id, new.action, new.subject)
           is not distinct from
           (old.id, old.at, old.user_id, old.role, old.token_id, old.address, old.request_id, old.action, old.subject)
       and coalesce(old.subject_id, new.subject_id) is not distinct from new.subject_id
       and coalesce(old.about, new.about) is not distinct from new.about
    then
        return new;
    end if;
    raise exception 'the audit log is append-only' using errcode = 'insufficient_privilege';
end $$;

create view audit_entries as
    select id, at, user_id, role, token_id, address, request_id, action, subject, subject_id, about, account_id,
           operation_id, status, code, ended_at
    from audit
    union all
    select id, at, user_id, role, token_id, address, request_id, action, subject, subject_id, about, null::bigint,
           null::uuid, null::smallint, null::text, null::timestamptz
    from audit_open;

update schema_generation set generation = 2;
