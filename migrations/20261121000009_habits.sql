-- Who did what, with what, from where, and how it ended. Append-only: an entry is begun before the deed and ended once
-- after it, and nothing else can be done to it. It refers to nothing, for it outlives what it tells of.

create table audit (
    id uuid not null,
    at timestamptz not null default now(),
    -- Who; null: nobody had signed in, or it was the command line.
    user_id bigint,
    -- 'provider', 'customer', 'nobody', or 'cli': the command line of the service's own machine.
    role text not null,
    token_id uuid,
    address inet,
    request_id text,
    -- Method and route, or the command; never what was sent.
    action text not null,
    -- On what.
    subject text,
    subject_id text,
    server_id bigint,
    -- The account it is about, where that is another's or nobody's deed: a failed login.
    account_id bigint,
    operation_id uuid,
    -- How it ended: the answer's status and code. Ended without a status: the client left before there was an answer.
    -- Not ended: under way, or the process died.
    status smallint,
    code text,
    ended_at timestamptz,
    primary key (id, at)
) partition by range (at);
create index audit_at on audit (at, id);
create index audit_user on audit (user_id, at);
create index audit_server on audit (server_id, at) where server_id is not null;
create index audit_account on audit (account_id, at) where account_id is not null;

create function audit_keep() returns trigger language plpgsql as $$
begin
    if tg_op = 'UPDATE' and old.ended_at is null and new.ended_at is not null
       and (new.id, new.at, new.user_id, new.role, new.token_id, new.address, new.request_id, new.action, new.subject)
           is not distinct from
           (old.id, old.at, old.user_id, old.role, old.token_id, old.address, old.request_id, old.action, old.subject)
       and coalesce(old.subject_id, new.subject_id) is not distinct from new.subject_id
       and coalesce(old.server_id, new.server_id) is not distinct from new.server_id
    then
        return new;
    end if;
    raise exception 'the audit log is append-only' using errcode = 'insufficient_privilege';
end $$;
create trigger audit_keep before update or delete on audit for each row execute function audit_keep();
create trigger audit_keep_all before truncate on audit for each statement execute function audit_keep();

-- Months to come get their partitions, and months that ended more than `days` days ago go as a whole: the only way that
-- entries end. Any process may call it at any time.
create function audit_upkeep(days integer) returns void language plpgsql as $$
declare
    month date := date_trunc('month', now() at time zone 'UTC')::date;
    part text;
begin
    perform pg_advisory_xact_lock(hashtext('audit_upkeep'));
    for ahead in 0..3 loop
        part := 'audit_' || to_char(month + make_interval(months => ahead), 'YYYYMM');
        if to_regclass(part) is null then
            execute format('create table %I partition of audit for values from (%L) to (%L)', part,
                (month + make_interval(months => ahead))::date || ' 00:00:00+00',
                (month + make_interval(months => ahead + 1))::date || ' 00:00:00+00');
            execute format('create trigger audit_keep_all before truncate on %I for each statement
                            execute function audit_keep()', part);
        end if;
    end loop;
    for part in select c.relname from pg_inherits i join pg_class c on c.oid = i.inhrelid
                where i.inhparent = 'audit'::regclass and c.relname ~ '^audit_\d{6}$' loop
        if to_date(right(part, 6), 'YYYYMM') + interval '1 month' < (now() at time zone 'UTC') - make_interval(days => days)
        then
            execute format('drop table %I', part);
        end if;
    end loop;
end $$;
select audit_upkeep(36500);
-- Requests in the present minute, by token or address. Processes take shares of a minute's allowance from here, so that
-- it holds for all of them together. Unlogged: after a crash everybody begins a new minute.
create unlogged table rate_limits (
    key text primary key,
    window_end timestamptz not null,
    taken bigint not null
);
create index rate_limits_window_end on rate_limits (window_end);
