-- Data for the fuzzer: an unreachable host, and a dozen of everything, so that routes return more than 404s. psql sets
-- :provider and :customer.
insert into nodes (host_id, name, online, cores, memory_mib, disk_gib) select id, 'n', true, 64, 65536, 1000 from hosts;
insert into tariffs (name, kind, cores, memory_mib, disk_gib, price)
select 'tariff ' || n, 'lxc', 1, 64, 1, n from generate_series(1, 12) n;
insert into images (name, kind) select 'image ' || n, 'lxc' from generate_series(1, 12) n;
insert into image_sources (image_id, host_id, source) select i.id, h.id, 'x' from images i, hosts h;
insert into address_pools (host_id, name, cidr, first_address, last_address, bridge)
select h.id, 'pool ' || n, ('10.' || n || '.0.0/24')::cidr, ('10.' || n || '.0.2')::inet, ('10.' || n || '.0.250')::inet, 'b'
from hosts h, generate_series(1, 12) n;
insert into servers (uuid, account_id, tariff_id, image_id, host_id, node, guest_number, kind, name, status, cores, memory_mib,
                     disk_gib, reserved)
select gen_random_uuid(), case when n % 3 = 0 then :provider else :customer end, n, n, h.id, 'n', nextval('guest_numbers'),
       'lxc', 'server-' || n, (array['running', 'stopped', 'unknown', 'failed'])[n % 4 + 1], 1, 64, 1, n % 4 <> 3
from hosts h, generate_series(1, 12) n;
insert into addresses (pool_id, address, server_id)
select p.id, p.first_address, s.id from servers s join address_pools p on p.id = s.id;
insert into samples (server_id, taken_at, power, uptime_s, cpu, memory_used, memory_max, disk_used, disk_max, net_in, net_out)
select s.id, now() - make_interval(mins => n), 'running', 60, 0.5, 1, 2, 1, 2, 1, 1 from servers s, generate_series(1, 20) n;
insert into operations (id, subject_kind, subject_id, lane, account_id, kind, state, data, deadline, ended_at, error_code,
                        error_message)
select gen_random_uuid(), 'server', id::text, 'host:' || host_id, account_id, 'start', 'failed', 'null', now(), now(),
       'HOST_UNREACHABLE', 'It was away.'
from servers;
