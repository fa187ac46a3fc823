-- A clock that is wrong for a while must cost nothing for good.

-- From where a refresh token was exchanged: an answer that was lost is given again there, for a moment.
alter table tokens add column used_from text;

-- How old what is kept may be taken to be. It follows the database's clock, at most twice as fast as time really passes
-- (the janitor measures that), so that a jump of the clock makes nothing old at once.
create table upkeep (
    single boolean primary key default true check (single),
    horizon timestamptz not null default now()
);
insert into upkeep default values;

-- The present, as far as ages are concerned.
create function aged_to() returns timestamptz language sql stable as $$ select least(now(), horizon) from upkeep $$;

-- Partitions for the month it is now and three to come. Who finds none for their entry asks for them.
create function audit_room() returns void language plpgsql as $$
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
end $$;

create or replace function audit_upkeep(days integer) returns void language plpgsql as $$
declare
    part text;
begin
    perform audit_room();
    for part in select c.relname from pg_inherits i join pg_class c on c.oid = i.inhrelid
                where i.inhparent = 'audit'::regclass and c.relname ~ '^audit_\d{6}$' loop
        if to_date(right(part, 6), 'YYYYMM') + interval '1 month' < (aged_to() at time zone 'UTC') - make_interval(days => days)
        then
            execute format('drop table %I', part);
        end if;
    end loop;
end $$;

-- Partitions around a moment. Where an older one, of before there were days, covers it there is room already.
create function history_room(moment timestamptz) returns void language plpgsql set lock_timeout = '2s'
    set timezone = 'UTC' as $$
declare
    kept record;
    part text;
    first timestamptz;
begin
    perform pg_advisory_xact_lock(hashtext('history_upkeep'));
    for kept in select * from (values
        ('samples', 'day', interval '1 day', 'YYYYMMDD'),
        ('samples_5m', 'day', interval '1 day', 'YYYYMMDD'),
        ('samples_1h', 'month', interval '1 month', 'YYYYMM')
    ) k (parent, unit, step, format) loop
        -- From a day back on, for what was taken before midnight and is stored after it.
        for ahead in -1..3 loop
            first := date_trunc(kept.unit, moment) + ahead * kept.step;
            part := kept.parent || '_' || to_char(first, kept.format);
            if to_regclass(part) is null then
                begin
                    execute format('create table %I partition of %I for values from (%L) to (%L)', part, kept.parent,
                        first, first + kept.step);
                exception when invalid_object_definition then
                    null;
                end;
            end if;
        end loop;
    end loop;
end $$;

create or replace function history_upkeep() returns void language plpgsql set lock_timeout = '2s' set timezone = 'UTC' as $$
declare
    kept record;
    part text;
begin
    perform history_room(now());
    for kept in select * from (values
        ('samples', interval '1 day', 'YYYYMMDD', interval '48 hours'),
        ('samples_5m', interval '1 day', 'YYYYMMDD', interval '30 days'),
        ('samples_1h', interval '1 month', 'YYYYMM', interval '2 years')
    ) k (parent, step, format, keep) loop
        for part in select c.relname from pg_inherits i join pg_class c on c.oid = i.inhrelid
                    where i.inhparent = kept.parent::regclass
                      and substring(c.relname from '^' || kept.parent || '_(\d+)$') is not null loop
            if to_timestamp(right(part, length(kept.format)), kept.format) + kept.step < aged_to() - kept.keep then
                execute format('drop table %I', part);
            end if;
        end loop;
    end loop;
    -- What there was before there were days: its last sample is of the day of that migration.
    if to_regclass('samples_before') is not null
       and not exists (select from samples_before where taken_at > aged_to() - interval '48 hours')
       and to_regclass('samples_' || to_char(aged_to() - interval '2 days', 'YYYYMMDD')) is not null
    then
        drop table samples_before;
    end if;
end $$;
