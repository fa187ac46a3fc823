-- Mails that wait for somebody to mend something, and that a provider can send again. See src/mail.
alter table mails
    -- Its last try failed for a reason that has nothing to do with this mail: it waits, however long.
    add column held boolean not null default false,
    -- From when sending is tried: since it was queued, or since somebody asked for it to be sent again.
    add column queued_at timestamptz not null default now();
update mails set queued_at = created_at;
create index mails_created_at on mails (created_at, id);
create index mails_waiting on mails (recipient, id) where state in ('queued', 'sending');

-- How root signs in over SSH to what an image installs. The demonstration's own images take its password.
alter table images
    add column root_login text not null default 'key' check (root_login in ('password', 'key', 'none'));
update images i set root_login = 'password'
    where exists (select from image_sources s join hosts h on h.id = s.host_id
                  where s.image_id = i.id and h.kind = 'incus' and s.source like 'innkeeper/%');

-- Warnings of a server's own resources are mailed as well, to whoever does not want critical alerts only.
alter table users
    add column alert_mails text not null default 'all' check (alert_mails in ('all', 'critical'));
-- How bad it was when its beginning was told.
alter table alerts add column told_level text check (told_level in ('warning', 'critical'));
update alerts set told_level = level where told_at is not null;
drop index alerts_to_tell;
create index alerts_to_tell on alerts (changed_at)
    where (resolved_at is null and acknowledged_at is null
           and (told_at is null or (told_level = 'warning' and level = 'critical'))
           and (level = 'critical' or kind in ('cpu', 'memory', 'disk')))
       or (told_at is not null and resolved_at is not null and end_told_at is null);
