-- People, their sessions and tokens, and the limits on logging in.

create table users (
    id bigint generated always as identity primary key,
    -- As typed; unique without regard to case.
    email text not null check (length(email) between 3 and 254),
    name text not null default '' check (length(name) <= 200),
    role text not null check (role in ('provider', 'customer')),
    -- argon2id, PHC string.
    password_hash text not null,
    -- How many servers the account may have at one time.
    server_limit integer not null default 100 check (server_limit >= 0),
    disabled_at timestamptz,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now()
);
create unique index users_email on users (lower(email));

-- One login. Its refresh tokens form a family: using one twice revokes the session and so all of them.
create table sessions (
    id uuid primary key,
    user_id bigint not null references users (id) on delete cascade,
    user_agent text not null default '',
    address text not null default '',
    created_at timestamptz not null default now(),
    expires_at timestamptz not null,
    revoked_at timestamptz
);
create index sessions_user on sessions (user_id) where revoked_at is null;

-- Every bearer secret, as the SHA-256 of 256 random bits: nothing to slow down, nothing to reverse.
create table tokens (
    id uuid primary key,
    kind text not null check (kind in ('access', 'refresh', 'api')),
    hash bytea not null unique check (length(hash) = 32),
    user_id bigint not null references users (id) on delete cascade,
    -- Of access and refresh tokens.
    session_id uuid references sessions (id) on delete cascade,
    -- Of API tokens: what it is for, and what it may do.
    name text,
    scopes text[] not null default '{}',
    created_at timestamptz not null default now(),
    -- Null: never (API tokens only).
    expires_at timestamptz,
    -- Of refresh tokens: when it was exchanged. A second use is theft.
    used_at timestamptz,
    -- Of API tokens, to within a minute.
    last_used_at timestamptz,
    revoked_at timestamptz,
    check ((kind = 'api') = (session_id is null)),
    check (kind = 'api' or expires_at is not null)
);
create index tokens_user on tokens (user_id) where kind = 'api' and revoked_at is null;
create index tokens_session on tokens (session_id);
create index tokens_expires on tokens (expires_at) where expires_at is not null;

-- Attempts to log in, by account and by address, in fixed windows: kept here so that they hold across processes.
create table login_attempts (
    key text primary key,
    window_start timestamptz not null,
    attempts integer not null
);

-- Whatever takes rights away is told to every process at once, sockets and caches included, whoever did it.
create function notify_auth_changed() returns trigger language plpgsql as $$
begin
    perform pg_notify('auth_changed', tg_argv[0] || ':' || old.id);
    return null;
end $$;
create trigger tokens_changed after delete or update of revoked_at, scopes, expires_at on tokens
    for each row when (old.kind <> 'refresh') execute function notify_auth_changed('token');
create trigger sessions_changed after delete or update of revoked_at, expires_at on sessions
    for each row execute function notify_auth_changed('session');
create trigger users_changed after delete or update of disabled_at, role on users
    for each row execute function notify_auth_changed('user');
