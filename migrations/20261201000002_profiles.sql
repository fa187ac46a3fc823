-- What a user chooses for themselves. Languages that only a newer version knows are read as English, and choices of
-- alerts as all of them.
alter table users
    drop constraint users_alert_mails_check,
    add column language text not null default 'en',
    add column time_zone text not null default 'UTC',
    add column server_mails boolean not null default true;
