-- Answers to requests with an Idempotency-Key, kept with what they made, in its transaction.
create table idempotency_keys (
    user_id bigint not null references users (id) on delete cascade,
    key text not null check (length(key) between 1 and 255),
    -- SHA-256 of the request: the same key with another request is a mistake.
    request_hash bytea not null check (length(request_hash) = 32),
    -- The answer as JSON, sealed: it may hold a password. Null only inside the transaction that makes it.
    answer_sealed bytea,
    created_at timestamptz not null default now(),
    primary key (user_id, key)
);
create index idempotency_keys_created_at on idempotency_keys (created_at);
