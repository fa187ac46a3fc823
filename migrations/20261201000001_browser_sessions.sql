-- Logins of browsers: their refresh token travels in a cookie, is good for nothing else, and no other is good there.
alter table sessions add column by_cookie boolean not null default false;
