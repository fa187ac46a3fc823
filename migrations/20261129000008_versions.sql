-- What version of its workflow's data an operation has: a program that knows only older ones leaves it to others.
alter table operations add column data_version integer not null default 1;

-- The oldest program that may work on this schema: programs of a smaller generation don't start.
create table schema_generation (
    only_row boolean primary key default true check (only_row),
    generation integer not null
);
insert into schema_generation (generation) values (1);
