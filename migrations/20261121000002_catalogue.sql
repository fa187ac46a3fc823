-- What can be ordered and where it can be put.

create table tariffs (
    id bigint generated always as identity primary key,
    name text not null check (length(name) between 1 and 100),
    kind text not null check (kind in ('lxc', 'vm')),
    cores integer not null check (cores between 1 and 1024),
    memory_mib bigint not null check (memory_mib between 16 and 16777216),
    disk_gib bigint not null check (disk_gib between 1 and 1048576),
    -- Traffic a month in GiB; null: not limited.
    traffic_gib bigint check (traffic_gib >= 0),
    -- Price a month in minor units (cents, kopeks).
    price bigint not null check (price >= 0),
    currency text not null default 'EUR' check (currency ~ '^[A-Z]{3}$'),
    -- Off: kept for those who have it, no longer sold.
    enabled boolean not null default true,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now()
);
create unique index tariffs_name on tariffs (lower(name));

create table hosts (
    id bigint generated always as identity primary key,
    name text not null check (length(name) between 1 and 100),
    kind text not null check (kind in ('incus')),
    -- Driver settings and credentials as JSON, sealed with the master key.
    config_sealed bytea not null,
    enabled boolean not null default true,
    -- How much more may be sold than is there.
    cpu_overcommit double precision not null default 4.0 check (cpu_overcommit between 0.1 and 100),
    memory_overcommit double precision not null default 1.0 check (memory_overcommit between 0.1 and 100),
    disk_overcommit double precision not null default 1.0 check (disk_overcommit between 0.1 and 100),
    -- What the last sweep found: when one was begun, when one last succeeded, and why it did not.
    sweep_started_at timestamptz,
    seen_at timestamptz,
    last_error text,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now()
);
create unique index hosts_name on hosts (lower(name));

create table nodes (
    host_id bigint not null references hosts (id) on delete cascade,
    name text not null,
    online boolean not null,
    cores integer not null,
    memory_mib bigint not null,
    disk_gib bigint not null,
    seen_at timestamptz not null default now(),
    primary key (host_id, name)
);

create table images (
    id bigint generated always as identity primary key,
    name text not null check (length(name) between 1 and 100),
    -- The operating system's family, as the server-management API has it ("linux").
    type text not null default 'linux' check (length(type) between 1 and 40),
    kind text not null check (kind in ('lxc', 'vm')),
    enabled boolean not null default true,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now()
);
create unique index images_name on images (lower(name), kind);

-- Where an image is to be had, in each host's own terms.
create table image_sources (
    image_id bigint not null references images (id) on delete cascade,
    host_id bigint not null references hosts (id) on delete cascade,
    source text not null check (length(source) between 1 and 255),
    primary key (image_id, host_id)
);

create table address_pools (
    id bigint generated always as identity primary key,
    host_id bigint not null references hosts (id),
    name text not null check (length(name) between 1 and 100),
    cidr cidr not null,
    gateway inet,
    -- The first and the last address that may be given out, both included.
    first_address inet not null,
    last_address inet not null,
    -- The host's bridge or managed network.
    bridge text not null check (length(bridge) between 1 and 64),
    vlan integer check (vlan between 1 and 4094),
    dns inet[] not null default '{}',
    enabled boolean not null default true,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    check (first_address <= last_address),
    check (first_address << cidr or first_address = host(cidr)::inet),
    check (last_address << cidr or last_address = host(cidr)::inet)
);
create unique index address_pools_name on address_pools (lower(name));
create index address_pools_host on address_pools (host_id);
