-- The network's rate, as sold and as a server was given it.
alter table tariffs add column bandwidth_mbps integer check (bandwidth_mbps between 1 and 1000000);
alter table servers add column bandwidth_mbps integer check (bandwidth_mbps between 1 and 1000000);
