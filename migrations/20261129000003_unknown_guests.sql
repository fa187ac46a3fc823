-- Addresses: why one is held back, and whose it was; and guests with our marker that no server goes with.

alter table addresses
    -- Why it is held back, where somebody or something said so.
    add column reason text check (length(reason) <= 500),
    -- The marker of the guest that it is held back for, as long as that is there.
    add column guest uuid,
    add constraint addresses_held check (server_id is null or guest is null);
create index addresses_guest on addresses (guest) where guest is not null;

-- Addresses that were given back: whose they were and since when, so that they rest before somebody else has them. One
-- that is taken again keeps its row until it is given back the next time.
create table released_addresses (
    pool_id bigint not null references address_pools (id) on delete cascade,
    address inet not null,
    user_id bigint references users (id) on delete cascade,
    server_id bigint references servers (id) on delete cascade,
    released_at timestamptz not null default now(),
    primary key (pool_id, address)
);
create index released_addresses_user on released_addresses (user_id) where user_id is not null;
create index released_addresses_server on released_addresses (server_id) where server_id is not null;

-- What sweeps saw and no server goes with: left over by a database that was restored, or brought back by hand.
create table unknown_guests (
    host_id bigint not null references hosts (id) on delete cascade,
    marker uuid not null,
    guest_number bigint not null,
    kind text not null check (kind in ('lxc', 'vm')),
    node text not null,
    -- What its host says that it was given; addresses are null until it was asked.
    hostname text,
    addresses inet[],
    cores integer,
    memory_mib bigint,
    disk_gib bigint,
    first_seen_at timestamptz not null default now(),
    last_seen_at timestamptz not null default now(),
    primary key (host_id, marker)
);
create index unknown_guests_number on unknown_guests (guest_number);
