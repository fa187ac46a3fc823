-- What customers own.

-- One number for every guest of the installation, so that it names one guest everywhere (Proxmox takes 100 and up).
create sequence guest_numbers as bigint start 1000 minvalue 100 maxvalue 999999999;

create table servers (
    id bigint generated always as identity primary key,
    -- The marker that the guest carries.
    uuid uuid not null unique,
    user_id bigint not null references users (id),
    tariff_id bigint not null references tariffs (id),
    image_id bigint not null references images (id),
    host_id bigint not null references hosts (id),
    node text not null,
    guest_number bigint not null unique,
    kind text not null check (kind in ('lxc', 'vm')),
    -- Host name in the guest.
    name text not null check (length(name) between 1 and 253),
    status text not null check (status in
        ('creating', 'running', 'stopped', 'starting', 'stopping', 'restarting', 'deleting', 'deleted',
         'unknown', 'failed')),
    -- What it was given, which a later change of the tariff does not alter.
    cores integer not null,
    memory_mib bigint not null,
    disk_gib bigint not null,
    ssh_keys text[] not null default '{}',
    -- Whether it holds its share of the node: from the order until the guest is certainly gone.
    reserved boolean not null default true,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    deleted_at timestamptz
);
create index servers_user on servers (user_id, id) where deleted_at is null;
create index servers_node on servers (host_id, node) where reserved;

-- Addresses in use. A row is a taken address; free ones have none.
create table addresses (
    pool_id bigint not null references address_pools (id),
    address inet not null,
    -- Null: held back by the provider (the gateway is).
    server_id bigint references servers (id),
    taken_at timestamptz not null default now(),
    primary key (pool_id, address)
);
create index addresses_server on addresses (server_id);

-- The latest look at each server, and the points of its chart.
create table samples (
    server_id bigint not null references servers (id) on delete cascade,
    taken_at timestamptz not null,
    power text not null,
    uptime_s bigint not null,
    -- Share of its cores, 0 to 1.
    cpu double precision not null,
    memory_used bigint not null,
    memory_max bigint not null,
    disk_used bigint not null,
    disk_max bigint not null,
    net_in bigint not null,
    net_out bigint not null,
    primary key (server_id, taken_at)
);
create index samples_taken_at on samples (taken_at);
