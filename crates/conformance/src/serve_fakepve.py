"""Serves one fakepve (PyPI) on loopback for our tests and lets them control it.

Prints one line of JSON about itself. Then each input line is a JSON string with a Python expression or statement that
may use `pve` (the fake) and `guest(vmid)`, and is answered with one line {"ok": value} or {"error": text}. Exits at the
end of its input, and so with the test that started it.

The fake is mostly accurate. Added here are paths that it answers without keeping what was set (a VM's resize and
pending configuration, storage features, a container's terminal), and answers that get lost.
"""

import asyncio
import hashlib
import inspect
import json
import os
import re
import sys
import tempfile
import time

from aiohttp import web

from fakepve import schema
from fakepve.certs import make_cert
from fakepve.lxc import SNAPSHOT_STORAGE, format_size, parse_size
from fakepve.model import PveError, TaskError
from fakepve.qemu import drives_of, join_drive
from fakepve.server import FakePve

TOKEN = ('innkeeper@pve!test', '11111111-2222-3333-4444-555555555555')


class Pve(FakePve):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        # Changes are carried out but not answered.
        self.lose_answers = False
        # Number of requests, and the most that were in progress at the same time.
        self.came = self.under_way = self.most = 0
        # (method, end of the path) -> [status, count]: carried out, then answered with this status.
        self.after = {}
        # (method, end of the path) -> asyncio.Event: such requests wait for it before they are carried out.
        self.held = {}
        # (method, end of the path) -> [[status, reason, body], ...]: recorded answers, each given once.
        self.canned = {}
        # Requests so far: (method, path, [[name, value], ...], relevant headers), once logged in.
        self.asked = []
        # The console's websocket does not repeat the subprotocol, as RFC 6455 allows.
        self.no_subprotocol = False
        # Seconds that growing a VM's disk takes.
        self.resize_secs = 0
        self.broken_resize = False
        # Names of nodes that the HA manager has in maintenance.
        self.maintenance = set()

    @web.middleware
    async def _middleware(self, request, handler):
        self.came += 1
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            if self.no_subprotocol and 'Sec-WebSocket-Protocol' in request.headers:
                request = request.clone(headers={k: x for k, x in request.headers.items()
                                                 if k.lower() != 'sec-websocket-protocol'})
            form = await request.post() if request.content_type == 'application/x-www-form-urlencoded' else {}
            self.asked.append((request.method, request.path[len('/api2/json'):],
                               [*request.query.items(), *form.items()],
                               {k: request.headers.get(k) for k in ('Content-Length', 'Transfer-Encoding')}))
            for (method, suffix), gate in list(self.held.items()):
                if request.method == method and request.path.endswith(suffix):
                    await gate.wait()
            for (method, suffix), answers in self.canned.items():
                if request.method == method and request.path.endswith(suffix) and answers:
                    status, reason, body = answers.pop(0)
                    return web.Response(status=status, reason=reason, text=body, content_type='application/json')
            response = await super()._middleware(request, handler)
        finally:
            self.under_way -= 1
        for (method, suffix), rule in self.after.items():
            if request.method == method and request.path.endswith(suffix) and rule[1] > 0:
                rule[1] -= 1
                # Real nodes send such answers without a body.
                return web.Response(status=rule[0], reason='Connection timed out')
        if self.lose_answers and request.method != 'GET':
            request.transport.abort()
        return response

    def _lxc_routes(self, router, node):
        super()._lxc_routes(router, node)
        one = node + '/lxc/{vmid}'
        router.add_post(one + '/termproxy', self._ct_console(self._termproxy))
        router.add_get(one + '/vncwebsocket', self._ct_console(self._vncwebsocket))

    async def _lxc_create(self, user, v):
        # As recorded: a pool's rights apply to everything but tags, since the guest is not in the pool yet.
        if v.get('tags'):
            self.require(user, '/vms/{0}'.format(v['vmid']), 'VM.Config.Options')
        return await super()._lxc_create(user, v)

    def _ct_console(self, handler):
        async def serve(request):
            self._find_ct(request.match_info['node'], request.match_info['vmid'])
            return await handler(request)
        return serve

    def _vm(self, request, priv=None):
        if '/lxc/' not in request.path:
            return super()._vm(request, priv)
        ct = self._find_ct(request.match_info['node'], request.match_info['vmid'])
        self.require(request['user'] if 'user' in request else 'root@pam', '/vms/{0}'.format(ct.vmid), priv)
        return ct

    async def _config_get(self, request):
        answer = await super()._config_get(request)
        if request.query.get('current'):
            return answer
        # As in the schema: includes pending values unless the current ones are requested.
        config = json.loads(answer.text)['data']
        config.update(self._vm(request).pending)
        return web.json_response({'data': {k: x for k, x in config.items() if x is not None}})

    async def _resources(self, request):
        answer = await super()._resources(request)
        rows = json.loads(answer.text)['data']
        for row in rows:
            if row['type'] == 'node' and row['node'] in self.maintenance:
                row['hastate'] = 'maintenance'
        return web.json_response({'data': rows})

    async def _permissions(self, v, user):
        held = await super()._permissions(v, user)
        if not self.version.startswith('8'):
            return held
        # The privileges that version 9 split used to be one.
        return {path: {'VM.Monitor' if p.startswith('VM.GuestAgent') else p: 1 for p in privs}
                for path, privs in held.items()}

    def _routes_innkeeper(self):
        return [('PUT', '/nodes/{node}/qemu/{vmid}/resize', self._resize),
                ('GET', '/nodes/{node}/qemu/{vmid}/feature', self._feature),
                ('GET', '/nodes/{node}/lxc/{vmid}/feature', self._ct_feature)]

    async def _resize(self, v, user):
        vm = self.find(v['node'], v['vmid'])
        self._check_lock(vm)
        self.need_quorum()
        disk, size = v['disk'], parse_size(v['size'])

        async def body():
            await self.pause(self.resize_secs)
            if self.broken_resize:
                raise TaskError('lvresize failed: insufficient free space: 1 extents needed, but only 0 available')
            volume, props = {k: (a, dict(b)) for k, a, b in drives_of(vm.config)}[disk]
            if size < parse_size(props.get('size', '0')):
                raise TaskError('shrinking disks is not supported')
            vm.config[disk] = join_drive(volume, dict(props, size=format_size(size)))
        return await self.task(vm.node, 'resize', vm.vmid, user, body, vm=vm)

    async def _feature(self, v, user):
        vm = self.find(v['node'], v['vmid'])
        has = self._qm_can_snapshot(vm.config) if v['feature'] == 'snapshot' else vm.template
        return {'hasFeature': 1 if has else 0, 'nodes': sorted(self.nodes)}

    async def _ct_feature(self, v, user):
        ct = self._find_ct(v['node'], v['vmid'])
        storage = ct.config['rootfs'].split(':')[0]
        return {'hasFeature': 1 if self.storages[storage]['type'] in SNAPSHOT_STORAGE else 0}


def furnish(pve):
    """Sets up what Innkeeper uses on a host: a token, templates, the firewall."""
    pve.apitokens[TOKEN[0]] = TOKEN[1]
    pve.users['innkeeper@pve'] = 'secret of the login'
    pve.store_file('local', 'debian-12-standard_12.7-1_amd64.tar.zst', 120 << 20, content='vztmpl')
    disk = 'base-9000-disk-0'
    pve.storages['local-lvm']['volumes'] = {disk: {
        'content': 'images', 'format': 'raw', 'size': 2 << 30, 'vmid': 9000, 'ctime': int(time.time())}}
    pve.add_vm(9000, 'debian-12', template=True, config={
        'boot': 'order=scsi0;ide2;net0', 'scsi0': 'local-lvm:{0},size=2G'.format(disk), 'scsihw': 'virtio-scsi-single',
        'ide2': 'local-lvm:vm-9000-cloudinit,media=cdrom', 'net0': 'virtio=BC:24:11:00:00:01,bridge=vmbr0',
        'agent': '1', 'serial0': 'socket', 'ostype': 'l26', 'cores': 2, 'sockets': 2, 'memory': 2048, 'balloon': 1024})
    pve._fw()['cluster'].setdefault('options', {})['enable'] = 1


def in_memory(path):
    """A path to the file's content in memory, so that nothing is left behind if this program is killed."""
    kept = os.memfd_create('fakepve')
    with open(path, 'rb') as file:
        os.write(kept, file.read())
    return '/proc/self/fd/{0}'.format(kept)


async def main():
    pve = Pve(user='root@pam', password='secret', host='127.0.0.1', port=0)
    with tempfile.TemporaryDirectory(prefix='fakepve-') as folder:
        certificate, key, der = make_cert(folder, hosts=('127.0.0.1',))
        certificate, key = in_memory(certificate), in_memory(key)
    furnish(pve)
    names = {'pve': pve, 'guest': pve.guest, 'PveError': PveError, 'TaskError': TaskError, 'asyncio': asyncio, 're': re,
             'time': time, 'schema': schema}

    async def close():
        await pve.stop()

    async def reopen():
        await pve.start(certificate, key)
    names.update(close=close, reopen=reopen)
    await pve.start(certificate, key)
    print(json.dumps({'url': pve.url, 'certificate': open(certificate).read(), 'token': TOKEN[0], 'secret': TOKEN[1],
                      'fingerprint': hashlib.sha256(der).hexdigest()}), flush=True)
    reader = asyncio.StreamReader(limit=1 << 22)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        try:
            text = json.loads(line)
            try:
                value = eval(compile(text, 'test', 'eval'), names)
            except SyntaxError:
                value = exec(compile(text, 'test', 'exec'), names)
            if inspect.isawaitable(value):
                value = await value
            answer = json.dumps({'ok': value}, default=str)
        except Exception as error:  # noqa: BLE001 - reported to the test
            answer = json.dumps({'error': '{0}: {1}'.format(type(error).__name__, error)})
        print(answer, flush=True)

if __name__ == '__main__':
    asyncio.run(main())
