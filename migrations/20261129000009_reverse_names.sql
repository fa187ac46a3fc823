-- Below which names an account may name its addresses, besides those that everybody may (INNKEEPER_REVERSE_SUFFIXES).
create table reverse_suffixes (
    user_id bigint not null references users (id) on delete cascade,
    suffix text not null check (length(suffix) between 1 and 253 and suffix = lower(suffix)),
    created_at timestamptz not null default now(),
    primary key (user_id, suffix)
);
