-- Snapshots are in the books: each comes to hold as much of its node as its guest had in use when it was taken, while the
-- guest may write its whole disk anew.
create table snapshot_room (
    server_id bigint not null references servers (id) on delete cascade,
    -- As on the host.
    name text not null,
    gib bigint not null check (gib >= 0),
    noted_at timestamptz not null default now(),
    primary key (server_id, name)
);

-- Bytes in use of the room for root disks, by whomever, at the last sweep; null where the host does not tell.
alter table nodes add column disk_used bigint;

create or replace view node_use as
select n.host_id, n.name, own.cores, own.memory_mib,
       case when n.disk_shared then coalesce(pool.disk_gib, 0) else own.disk_gib end as disk_gib
from nodes n
cross join lateral (
    select coalesce(sum(s.cores), 0) as cores, coalesce(sum(s.memory_mib), 0) as memory_mib,
           coalesce(sum(s.disk_gib + held.gib), 0) as disk_gib
    from servers s
    cross join lateral (select coalesce(sum(r.gib), 0) as gib from snapshot_room r where r.server_id = s.id) held
    where s.reserved and s.host_id = n.host_id and s.node = n.name) own
left join (
    select m.host_id, sum(s.disk_gib + held.gib) as disk_gib
    from nodes m
    join servers s on s.reserved and s.host_id = m.host_id and s.node = m.name
    cross join lateral (select coalesce(sum(r.gib), 0) as gib from snapshot_room r where r.server_id = s.id) held
    where m.disk_shared group by m.host_id) pool on pool.host_id = n.host_id;
