-- Outgoing mail: queued in the transaction of what it tells about.

create table mails (
    id uuid primary key,
    -- The event it tells about; the second mail for one event is not queued.
    event text not null unique,
    recipient text not null,
    subject text not null,
    text_body text not null,
    html_body text not null,
    -- sending: a process is at it, outcome not recorded yet. unknown: it died with the content on its way to the mail
    -- server, so the mail is not sent again by itself.
    state text not null default 'queued' check (state in ('queued', 'sending', 'sent', 'failed', 'unknown')),
    attempts integer not null default 0,
    run_at timestamptz not null default now(),
    -- While sending: when the mail server was about to be given the content. Before that, the mail is certainly not out.
    handed_over_at timestamptz,
    last_error text,
    created_at timestamptz not null default now(),
    sent_at timestamptz
);
create index mails_due on mails (run_at) where state in ('queued', 'sending');
