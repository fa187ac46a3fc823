-- The rest of what can be done with a server: sizes by parts, snapshots' limits, labels, protection, suspension,
-- names of addresses, keys of an account.

-- How far a server of the tariff may be resized by parts; null: not beyond what the tariff has.
alter table tariffs
    add column max_cores integer check (max_cores between 1 and 1024),
    add column max_memory_mib bigint check (max_memory_mib between 16 and 16777216),
    add column max_disk_gib bigint check (max_disk_gib between 1 and 1048576),
    -- How many snapshots a server may have at one time.
    add column snapshot_limit integer not null default 5 check (snapshot_limit between 0 and 1000);

alter table servers
    add column labels jsonb not null default '{}' check (jsonb_typeof(labels) = 'object'),
    -- Refuses deletion until it is switched off again.
    add column protected boolean not null default false,
    -- Since when the provider keeps it down, and why.
    add column suspended_at timestamptz,
    add column suspend_reason text check (length(suspend_reason) <= 500),
    -- Whether it ran then, and so is started when the suspension ends.
    add column suspended_running boolean not null default false,
    drop constraint servers_status_check,
    add constraint servers_status_check check (status in
        ('creating', 'running', 'stopped', 'starting', 'stopping', 'restarting', 'resizing', 'restoring',
         'reinstalling', 'deleting', 'deleted', 'unknown', 'failed')),
    add constraint servers_suspension check ((suspended_at is null) = (suspend_reason is null));
create index servers_labels on servers using gin (labels) where deleted_at is null;

-- The name that the address is to be found under (PTR).
alter table addresses add column reverse_dns text check (length(reverse_dns) between 1 and 253);

-- Public keys that an account orders servers with.
create table ssh_keys (
    id bigint generated always as identity primary key,
    user_id bigint not null references users (id) on delete cascade,
    name text not null check (length(name) between 1 and 100),
    public_key text not null check (length(public_key) <= 8192),
    -- SHA256:… as ssh-keygen -l prints it.
    fingerprint text not null,
    created_at timestamptz not null default now(),
    unique (user_id, fingerprint)
);
