-- Alerts: rules, what is remembered between samples, incidents, mutes, traffic. See src/alerts.

-- Whether the server is meant to run: what was last asked for, not what a sweep has seen.
alter table servers add column wanted_up boolean;
update servers set wanted_up = status not in ('stopped', 'stopping', 'deleting', 'deleted', 'failed');
alter table servers alter column wanted_up set not null;

create function servers_wanted_up() returns trigger language plpgsql as $$
begin
    if tg_op = 'INSERT' then
        new.wanted_up := new.status not in ('stopped', 'stopping', 'deleting', 'deleted', 'failed');
    elsif new.status in ('creating', 'starting', 'restarting', 'reinstalling') then
        new.wanted_up := true;
    elsif new.status in ('stopping', 'deleting', 'deleted', 'failed') then
        new.wanted_up := false;
    end if;
    return new;
end $$;
create trigger servers_wanted_up before insert or update of status on servers
    for each row execute function servers_wanted_up();

-- A sweep is judged by its host's servers, and by which operations were at work on them.
create index servers_host on servers (host_id) where deleted_at is null;
create index operations_ended on operations (ended_at) where ended_at is not null;

-- Rules other than the built-in ones. The most specific one holds as a whole: the server's, its tariff's, everybody's.
create table alert_rules (
    id bigint generated always as identity primary key,
    tariff_id bigint references tariffs (id) on delete cascade,
    server_id bigint references servers (id) on delete cascade,
    kind text not null,
    enabled boolean not null,
    warning double precision not null,
    critical double precision not null,
    clear double precision not null,
    sustain_s integer not null check (sustain_s >= 0),
    clear_sustain_s integer not null check (clear_sustain_s >= 0),
    -- {from, to, zone}: hours in which nobody is mailed.
    quiet jsonb,
    updated_at timestamptz not null default now(),
    check (tariff_id is null or server_id is null),
    check (clear <= warning and warning <= critical)
);
create unique index alert_rules_scope on alert_rules (kind, coalesce(server_id, 0), coalesce(tariff_id, 0));
create index alert_rules_server on alert_rules (server_id) where server_id is not null;
create index alert_rules_tariff on alert_rules (tariff_id) where tariff_id is not null;

-- Nobody is mailed until then: about a server, about a kind of alert, or about one kind on one server.
create table alert_mutes (
    id bigint generated always as identity primary key,
    server_id bigint references servers (id) on delete cascade,
    kind text,
    until timestamptz not null,
    user_id bigint references users (id) on delete set null,
    created_at timestamptz not null default now(),
    check (server_id is not null or kind is not null)
);
create unique index alert_mutes_scope on alert_mutes (coalesce(server_id, 0), coalesce(kind, ''));

-- What the state machine remembers of whom; there is no row where all is quiet. Subjects are server:1, host:1, pool:1,
-- operation:<uuid>.
create table alert_tracks (
    kind text not null,
    subject text not null,
    track jsonb not null,
    primary key (subject, kind)
);

-- Incidents: from when an alert is raised until it ends.
create table alerts (
    id bigint generated always as identity primary key,
    kind text not null,
    subject text not null,
    server_id bigint references servers (id) on delete cascade,
    host_id bigint references hosts (id) on delete cascade,
    pool_id bigint references address_pools (id) on delete cascade,
    operation_id uuid references operations (id) on delete cascade,
    level text not null check (level in ('warning', 'critical')),
    -- The latest figure while it is open, then the last one: a share, or 1.
    value double precision not null,
    raised_at timestamptz not null,
    resolved_at timestamptz,
    -- How it ended: recovered; withdrawn (there is nothing to watch any more).
    ended text check (ended in ('recovered', 'withdrawn')),
    acknowledged_at timestamptz,
    acknowledged_by bigint references users (id) on delete set null,
    -- When the level changed last, or it ended: mails wait a little after it, for what comes together to go together.
    changed_at timestamptz not null default now(),
    -- When the mails about its beginning and about its end were queued.
    told_at timestamptz,
    end_told_at timestamptz,
    check ((resolved_at is null) = (ended is null)),
    check (end_told_at is null or (told_at is not null and resolved_at is not null))
);
create unique index alerts_open on alerts (kind, subject) where resolved_at is null;
create index alerts_server on alerts (server_id, raised_at) where server_id is not null;
create index alerts_host on alerts (host_id) where resolved_at is null;
create index alerts_raised_at on alerts (raised_at, id);
create index alerts_to_tell on alerts (changed_at)
    where (level = 'critical' and told_at is null and resolved_at is null and acknowledged_at is null)
       or (told_at is not null and resolved_at is not null and end_told_at is null);

-- Bytes by month (UTC) of servers whose tariff has a quota, counted from the guests' counters.
create table traffic (
    server_id bigint not null references servers (id) on delete cascade,
    month date not null,
    received bigint not null,
    sent bigint not null,
    -- The counters as they were last seen, and when.
    last_received bigint not null,
    last_sent bigint not null,
    seen_at timestamptz not null,
    primary key (server_id, month)
) with (fillfactor = 70);
