-- Nothing is mailed by rule to an address whose owner has not said that it is theirs. Who has an account already has
-- been mailed to all along, and whoever the provider adds is known to the provider.
alter table users add column confirmed_at timestamptz;
update users set confirmed_at = created_at;

-- What is mailed to an address, to come back from there. By its hash, as every token.
create table address_confirmations (
    hash bytea primary key check (length(hash) = 32),
    user_id bigint not null references users (id) on delete cascade,
    -- The address that it was mailed to: another one is not confirmed by it.
    email text not null,
    created_at timestamptz not null default now(),
    expires_at timestamptz not null
);
create index address_confirmations_user on address_confirmations (user_id);

-- How often a rule mails: what was told of late, by server and kind.
create index alerts_told on alerts (server_id, kind, told_at) where told_at is not null;
