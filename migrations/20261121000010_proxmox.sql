-- Hosts of the kind Proxmox VE, and the way into their guests over SSH.

alter table hosts drop constraint hosts_kind_check;
alter table hosts add constraint hosts_kind_check check (kind in ('incus', 'proxmox'));

-- The key that Innkeeper signs in with: the private half sealed, the public one as an OpenSSH line.
alter table hosts add column management_key_sealed bytea;
alter table hosts add column management_key text;

-- Who a guest or a node proved to be at the first connection (an OpenSSH public key); null: not yet met.
alter table servers add column ssh_host_key text;
alter table nodes add column ssh_host_key text;
