-- Refusals that may be for a stale lock, about which the provider is alerted.
create index operations_locked on operations (subject_id, ended_at)
    where subject_kind = 'server' and state = 'failed' and error_code = 'LOCKED';
-- Which kinds of alerts have their warnings mailed is the program's to say: the index has what is to be notified at all.
drop index alerts_to_tell;
create index alerts_to_tell on alerts (changed_at)
    where (resolved_at is null and acknowledged_at is null
           and (told_at is null or (told_level = 'warning' and level = 'critical')))
       or (told_at is not null and resolved_at is not null and end_told_at is null);
