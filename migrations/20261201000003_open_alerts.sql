-- Every server shows how many open alerts it has; ended ones stay for a year.
create index alerts_open_of_server on alerts (server_id) where resolved_at is null and server_id is not null;
