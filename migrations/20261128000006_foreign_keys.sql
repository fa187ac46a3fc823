-- Every foreign key has an index: without one, each deletion of what it refers to reads the whole table.
create index sessions_user_id on sessions (user_id);
create index tokens_user_id on tokens (user_id);
create index image_sources_host_id on image_sources (host_id);
create index servers_user_id on servers (user_id);
create index servers_tariff_id on servers (tariff_id);
create index servers_image_id on servers (image_id);
create index servers_host_id on servers (host_id);
create index operations_user_id on operations (user_id) where user_id is not null;
create index alert_mutes_server_id on alert_mutes (server_id) where server_id is not null;
create index alert_mutes_user_id on alert_mutes (user_id);
create index alerts_host_id on alerts (host_id) where host_id is not null;
create index alerts_pool_id on alerts (pool_id) where pool_id is not null;
create index alerts_operation_id on alerts (operation_id) where operation_id is not null;
create index alerts_acknowledged_by on alerts (acknowledged_by) where acknowledged_by is not null;
