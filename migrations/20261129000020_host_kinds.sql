-- Which kinds of hosts there are is said in one place, the program's own list of them: a host is written down only with a
-- kind that is on it, and a word that is not on it is read as one of a newer version.
alter table hosts drop constraint hosts_kind_check;
