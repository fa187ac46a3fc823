-- An entry of the audit log that has been begun waits here until it has ended. What was done is kept for as long as the
-- log is; of what was refused, an account's first few of an hour are, and the others are counted: nobody is to fill a
-- log that nobody may empty.
create table audit_open (
    id uuid primary key,
    at timestamptz not null default now(),
    user_id bigint,
    role text not null,
    token_id uuid,
    address inet,
    request_id text,
    action text not null,
    subject text,
    subject_id text,
    server_id bigint
);
create index audit_open_at on audit_open (at);

create table audit_refused (
    hour timestamptz not null,
    -- Who was refused; 0: nobody had signed in.
    user_id bigint not null default 0,
    -- Whose account it was about, where nobody had signed in; 0: nobody's.
    account_id bigint not null default 0,
    count bigint not null,
    last_at timestamptz not null,
    primary key (hour, user_id, account_id)
);
create index audit_refused_user on audit_refused (user_id, hour);
create index audit_refused_account on audit_refused (account_id, hour) where account_id <> 0;

-- All of them.
create view audit_entries as
    select id, at, user_id, role, token_id, address, request_id, action, subject, subject_id, server_id, account_id,
           operation_id, status, code, ended_at
    from audit
    union all
    select id, at, user_id, role, token_id, address, request_id, action, subject, subject_id, server_id, null::bigint,
           null::uuid, null::smallint, null::text, null::timestamptz
    from audit_open;
