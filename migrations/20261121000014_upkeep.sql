-- What the janitor looks for: mails that are done with, and what operations said long ago.
create index mails_done on mails (created_at) where state in ('sent', 'failed', 'unknown');
create index operation_log_at on operation_log using brin (at);
