-- History: samples as they come, by day; summed up in steps of 5 minutes, by day, and of an hour, by month. What is too
-- old goes with its whole partition. Nothing here refers to servers: a sample costs no look-up, and a server's history
-- outlives it.

alter table samples rename to samples_before;
alter table samples_before rename constraint samples_pkey to samples_before_pkey;
alter table samples_before drop constraint samples_server_id_fkey;
drop index samples_taken_at;
alter table samples_before add column net_in_rate double precision, add column net_out_rate double precision;

create table samples (
    server_id bigint not null,
    taken_at timestamptz not null,
    power text not null,
    uptime_s bigint not null,
    -- Share of its cores, 0 to 1.
    cpu double precision not null,
    memory_used bigint not null,
    memory_max bigint not null,
    disk_used bigint not null,
    disk_max bigint not null,
    -- Counters since its start, in bytes.
    net_in bigint not null,
    net_out bigint not null,
    -- Bytes a second since the sample before; null where there was none.
    net_in_rate double precision,
    net_out_rate double precision,
    primary key (server_id, taken_at)
) partition by range (taken_at);
-- They come in the order of time: a small index finds a span of it.
create index samples_taken_at on samples using brin (taken_at) with (pages_per_range = 16);

create table samples_5m (
    server_id bigint not null,
    taken_at timestamptz not null,
    -- How many samples, and the share of them in which it ran.
    samples bigint not null,
    up double precision not null,
    cpu_min double precision not null,
    cpu_mean double precision not null,
    cpu_max double precision not null,
    memory_min bigint not null,
    memory_mean double precision not null,
    memory_max bigint not null,
    memory_size bigint not null,
    disk_min bigint not null,
    disk_mean double precision not null,
    disk_max bigint not null,
    disk_size bigint not null,
    -- Of how many samples the rates are; null where there were none.
    rates bigint not null,
    net_in_min double precision,
    net_in_mean double precision,
    net_in_max double precision,
    net_out_min double precision,
    net_out_mean double precision,
    net_out_max double precision,
    primary key (server_id, taken_at)
) partition by range (taken_at);
create index samples_5m_taken_at on samples_5m using brin (taken_at) with (pages_per_range = 16);

create table samples_1h (like samples_5m including all) partition by range (taken_at);

-- How far each level is summed up; a process that does so holds its row.
create table history_progress (
    level text primary key check (level in ('5m', '1h')),
    done_to timestamptz not null
);
insert into history_progress (level, done_to)
select l.level, date_bin(l.step, coalesce((select min(taken_at) from samples_before), now()), 'epoch')
from (values ('5m', interval '5 minutes'), ('1h', interval '1 hour')) l (level, step);

-- Sweeps of a host that failed in a row: after a few it is asked half as often, by whichever process.
alter table hosts add column sweep_failures integer not null default 0;

-- Days and months to come get their partitions, and those that ended long enough ago go. Any process may call it at any
-- time; one that finds somebody reading what is to go gives up at once and leaves it to the next.
create function history_upkeep() returns void language plpgsql set lock_timeout = '2s' set timezone = 'UTC' as $$
declare
    kept record;
    part text;
    first timestamptz;
begin
    perform pg_advisory_xact_lock(hashtext('history_upkeep'));
    for kept in select * from (values
        ('samples', 'day', interval '1 day', 'YYYYMMDD', interval '48 hours'),
        ('samples_5m', 'day', interval '1 day', 'YYYYMMDD', interval '30 days'),
        ('samples_1h', 'month', interval '1 month', 'YYYYMM', interval '2 years')
    ) k (parent, unit, step, format, keep) loop
        -- From a day back on, for what was taken before midnight and is stored after it.
        for ahead in -1..3 loop
            first := date_trunc(kept.unit, now()) + ahead * kept.step;
            part := kept.parent || '_' || to_char(first, kept.format);
            if to_regclass(part) is null and (kept.parent <> 'samples' or to_regclass('samples_before') is null
                or first >= date_trunc('day', now()) + interval '1 day')
            then
                execute format('create table %I partition of %I for values from (%L) to (%L)', part, kept.parent, first,
                    first + kept.step);
            end if;
        end loop;
        for part in select c.relname from pg_inherits i join pg_class c on c.oid = i.inhrelid
                    where i.inhparent = kept.parent::regclass
                      and substring(c.relname from '^' || kept.parent || '_(\d+)$') is not null loop
            if to_timestamp(right(part, length(kept.format)), kept.format) + kept.step < now() - kept.keep then
                execute format('drop table %I', part);
            end if;
        end loop;
    end loop;
    -- What there was before there were days: its last sample is of the day of this migration.
    if to_regclass('samples_before') is not null
       and not exists (select from samples_before where taken_at > now() - interval '48 hours')
       and to_regclass('samples_' || to_char(now() - interval '2 days', 'YYYYMMDD')) is not null
    then
        drop table samples_before;
    end if;
end $$;

-- Samples of before are a partition of their own until they are too old.
do $$
begin
    execute format('alter table samples attach partition samples_before for values from (minvalue) to (%L)',
        date_trunc('day', now() at time zone 'UTC') + interval '1 day' || '+00');
end $$;
select history_upkeep();
