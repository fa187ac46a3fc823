-- Outgoing mail: queued in the transaction of what it tells about.

create table mails (
    id uuid primary key,
    -- The event it tells about; the second mail for one event is not queued.
    event text not null unique,
    recipient text not null,
    subject text not null,
    text_body text not null,
    html_body text not null,
    -- sending: handed to the transport, outcome not recorded yet. unknown: the process died in that moment, so it
    -- is not sent again by itself.
    state text not null default 'queued' check (state in ('queued', 'sending', 'sent', 'failed', 'unknown')),
    attempts integer not null default 0,
    run_at timestamptz not null default now(),
    last_error text,
    created_at timestamptz not null default now(),
    sent_at timestamptz
);
create index mails_due on mails (run_at) where state in ('queued', 'sending');
