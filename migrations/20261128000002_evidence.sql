-- What is not known is null, a guest may be paused, and where guests can be made is known by node.

alter table servers drop constraint servers_status_check;
alter table servers add constraint servers_status_check check (status in
    ('creating', 'running', 'stopped', 'paused', 'starting', 'stopping', 'restarting', 'resizing', 'restoring',
     'reinstalling', 'deleting', 'deleted', 'unknown', 'failed'));

alter table samples
    alter column uptime_s drop not null,
    alter column cpu drop not null,
    alter column memory_used drop not null,
    alter column memory_max drop not null,
    alter column disk_used drop not null,
    alter column disk_max drop not null,
    alter column net_in drop not null,
    alter column net_out drop not null,
    -- Why it is paused, in its host's word.
    add column reason text;

-- Of how many samples each figure is known; null in rows from before: of all of them.
alter table samples_5m
    alter column cpu_min drop not null, alter column cpu_mean drop not null, alter column cpu_max drop not null,
    alter column memory_min drop not null, alter column memory_mean drop not null,
    alter column memory_max drop not null, alter column memory_size drop not null,
    alter column disk_min drop not null, alter column disk_mean drop not null, alter column disk_max drop not null,
    alter column disk_size drop not null,
    add column cpus bigint, add column memories bigint, add column disks bigint;
alter table samples_1h
    alter column cpu_min drop not null, alter column cpu_mean drop not null, alter column cpu_max drop not null,
    alter column memory_min drop not null, alter column memory_mean drop not null,
    alter column memory_max drop not null, alter column memory_size drop not null,
    alter column disk_min drop not null, alter column disk_mean drop not null, alter column disk_max drop not null,
    alter column disk_size drop not null,
    add column cpus bigint, add column memories bigint, add column disks bigint;

-- The room is that of one storage, which all nodes of the host that say so share.
alter table nodes add column disk_shared boolean not null default false;

-- What servers hold of each node. The disk of a shared storage is there once, so what is held of it counts on every node.
create view node_use as
select n.host_id, n.name, own.cores, own.memory_mib,
       case when n.disk_shared then coalesce(pool.disk_gib, 0) else own.disk_gib end as disk_gib
from nodes n
cross join lateral (
    select coalesce(sum(s.cores), 0) as cores, coalesce(sum(s.memory_mib), 0) as memory_mib,
           coalesce(sum(s.disk_gib), 0) as disk_gib
    from servers s where s.reserved and s.host_id = n.host_id and s.node = n.name) own
left join (
    select m.host_id, sum(s.disk_gib) as disk_gib
    from nodes m join servers s on s.reserved and s.host_id = m.host_id and s.node = m.name
    where m.disk_shared group by m.host_id) pool on pool.host_id = n.host_id;

-- The nodes that guests can be made on from the image, and when the host was last asked; null: any that it has.
alter table image_sources add column nodes text[], add column looked_at timestamptz;
