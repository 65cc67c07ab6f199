"""One fault at a time, then recovery: what may happen to a cluster in one simulated run."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

from clustersession.testing.simulated import SimulatedNode, World

Stop = Callable[[], None]
LOSING = "crash and lose files"
ONE_AT_A_TIME = ("crash", LOSING, "pause", "silence", "drop", "delay", "duplicate")
MORE_THAN_ONE = ("heavy drop", "heavy delay")  # many calls fail at once, so that views and owners disagree: not promised
CUTS = ("cut", "half cut")  # one link of many
DRAINS = ("drain", "drain and lose files")
ALONE = ("isolation",)  # one host reaches no other for longer than it takes to be dead, and its users go on there
HALVES = ("halves",)  # the same of two parts, of equal size if that can be
PAIRS = ("cuts in pairs",)
LOSSY = ("isolation, lossy heal",)  # and of the first messages afterwards many are lost
SWIZZLE = ("swizzle",)  # a host reaches nobody for a moment, and then nobody but one for a long one
RELAY = ("relay",)  # one host is just back when the next one is killed
AWAY = ("crash, and others leave", "silence, and others leave")  # for good, and new ones come, before it is back on its files
SLOW = ("crash while slow",)  # what a coordinator has begun is only half done
LONG = ("long silence", "long cut")  # longer than a session may be idle, in a run where that is short
STAYING = 2  # of those that a host which is away knows, at least
JOINING = (1, 3, 4, 5)  # three are asked for a session whose owners are gone: all of them can be new
NOISE = ("drop", "delay", "duplicate", *MORE_THAN_ONE)
DURATION_S = {
    "pause": (0.3, 12.0),
    "silence": (0.5, 10.0),
    "crash": (0.2, 12.0),
    "drain": (0.2, 2.0),
    "drain and lose files": (0.2, 2.0),
    "crash and lose files": (0.2, 12.0),
    "long silence": (20.0, 40.0),
    "long cut": (20.0, 40.0),
    "isolation": (3.5, 12.0),
    "isolation, lossy heal": (3.5, 12.0),
    "halves": (3.5, 12.0),
    "cuts in pairs": (3.5, 12.0),
    "relay": (4.5, 9.0),
    "swizzle": (2.0, 8.0),
    **dict.fromkeys(AWAY, (4.0, 9.0)),
    "crash while slow": (4.0, 8.0),
}


def start_fault(world: World, kind: str) -> Stop:
    """Inject one fault of this kind; the returned function takes it away."""
    world.counts[f"fault: {kind}"] += 1
    world.log(f"*** {kind}")
    node = world.random.choice(list(world.nodes.values()))
    return _of_a_host(world, node, kind) or _of_links(world, node, kind) or _noise(world, kind)


def _of_a_host(world: World, node: SimulatedNode, kind: str) -> Stop | None:
    """It does not run, or ends, for a while."""
    match kind:
        case "drain" | "drain and lose files":
            return _drained(world, node, keeps_files=kind == "drain")
        case "crash":
            files = node.crash()
            return lambda: node.start(files=files)
        case "crash while slow":
            return _crashed_while_slow(world, node)
        case "crash and lose files":  # `LOSING`
            node.crash()
            return lambda: node.start(files=None)
        case "pause":
            node.pause()
            return node.resume
        case "relay":
            return _relayed(world, node)
        case "crash, and others leave" | "silence, and others leave":
            return _away(world, node, killed=kind == AWAY[0])
    return None


def _of_links(world: World, node: SimulatedNode, kind: str) -> Stop | None:
    """Some hosts don't reach some others for a while."""
    match kind:
        case "silence" | "long silence":
            return _silence(world, node)
        case "isolation" | "isolation, lossy heal":
            return _isolated(world, node, lossy=kind != "isolation")
        case "halves":
            return _halved(world)
        case "cuts in pairs":
            return _cut_in_pairs(world)
        case "swizzle":
            return _swizzled(world, node)
        case "cut" | "half cut" | "long cut":
            return _cut(world, node, one_way=kind == "half cut")
    return None


def _drained(world: World, node: SimulatedNode, *, keeps_files: bool) -> Stop:
    """It leaves, ends when it owes nothing, and is back on its files or as a new one."""
    node.leave()

    def back() -> None:
        drained = _owes_nothing(world, node)
        world.counts["drained"] += drained
        keeps = keeps_files or not drained
        files = node.crash()
        world.run(world.now + world.random.uniform(0.1, 8.0))
        node.start(files=files if keeps else None)

    return back


def _silence(world: World, node: SimulatedNode) -> Stop:
    world.network.silent.add(node.name)
    return world.network.silent.clear


def _cut(world: World, node: SimulatedNode, *, one_way: bool) -> Stop:
    """One link of many: both ends are alive, and everybody else reaches them."""
    other = world.random.choice([each for each in world.nodes.values() if each is not node])
    world.network.cut |= {(node.name, other.name)} if one_way else {(node.name, other.name), (other.name, node.name)}
    return world.network.cut.clear


def _isolated(world: World, node: SimulatedNode, *, lossy: bool) -> Stop:
    _cut_off(world, {node.name})

    def healed() -> None:
        world.network.cut.clear()
        if lossy:
            world.network.loss = 0.4
            world.run(world.now + 1.5)
            world.network.loss = 0.0

    return healed


def _halved(world: World) -> Stop:
    _cut_off(world, set(world.random.sample(list(world.nodes), len(world.nodes) // 2)))
    return world.network.cut.clear


def _cut_in_pairs(world: World) -> Stop:
    """Each host but one at most loses one other: all can still hear of all."""
    names = list(world.nodes)
    world.random.shuffle(names)
    for one, other in zip(names[::2], names[1::2], strict=False):
        world.network.cut |= {(one, other), (other, one)}
    return world.network.cut.clear


def _cut_off(world: World, names: Collection[str]) -> None:
    for one in names:
        for other in world.nodes.keys() - set(names):
            world.network.cut |= {(one, other), (other, one)}


def _swizzled(world: World, node: SimulatedNode) -> Stop:
    """Its links are cut one by one, and come back one by one in another order; the last one stays cut."""
    others = [name for name in world.nodes if name != node.name]
    for change, count in ((world.network.cut.update, len(others)), (world.network.cut.difference_update, len(others) - 1)):
        world.random.shuffle(others)
        for other in others[:count]:
            change({(node.name, other), (other, node.name)})
            world.run(world.now + world.random.uniform(0.0, 0.4))
    return world.network.cut.clear


def _away(world: World, node: SimulatedNode, *, killed: bool) -> Stop:
    """It comes back to a cluster in which few are left of those that it knows."""
    files = node.crash() if killed else None
    away = _silence(world, node) if files is None else lambda: node.start(files=files)

    def back() -> None:
        others = [each for each in world.nodes.values() if each is not node]
        world.random.shuffle(others)
        leaving, joining = others[: max(1, len(others) - STAYING)], world.random.choice(JOINING)
        if world.random.random() < 0.25:
            _joined(world, joining)
            _left_for_good(world, leaving)
        else:
            _left_for_good(world, leaving)
            _joined(world, joining)
        away()

    return back


def _joined(world: World, count: int) -> None:
    for _ in range(count):
        world.join(f"n{world.made}")
    world.run(world.now + 4.0)


def _left_for_good(world: World, leaving: Iterable[SimulatedNode]) -> None:
    """One after the other, each when it owes nothing; who cannot stays."""
    for node in leaving:
        node.leave()
        if _owes_nothing(world, node):
            node.keeper.left()
            world.run(world.now + 0.5)
            world.remove(node.name)
            world.counts["left for good"] += 1
        else:
            node.start(files=node.crash())
        world.run(world.now + world.random.uniform(0.1, 3.0))


def _owes_nothing(world: World, leaver: SimulatedNode) -> bool:
    """In the time that a drain may take."""
    limit = world.now + 30.0
    while leaver.duty.progress.owed != 0 and world.now < limit:
        world.run(world.now + 0.05)
    return leaver.duty.progress.owed == 0


def apart(world: World) -> frozenset[str]:
    """The smaller of two parts of the cluster between which nothing passes; nobody while there are not two."""
    cut, names = world.network.cut, set(world.nodes)
    if not cut:
        return frozenset()
    part: set[str] = set()
    reached = {min(names)}
    while reached:
        part |= reached
        reached = {two for two in names - part if any((one, two) not in cut or (two, one) not in cut for one in part)}
    others = names - part
    return frozenset(part if len(part) <= len(others) else others)


def _relayed(world: World, node: SimulatedNode) -> Stop:
    """Others have taken over from it meanwhile, so that what it comes back with is old."""
    files = node.crash()
    other = world.random.choice([each for each in world.nodes.values() if each is not node])

    def back() -> None:
        left = other.crash()
        node.start(files=files)
        world.run(world.now + world.random.uniform(*DURATION_S["relay"]))
        other.start(files=left)

    return back


def _crashed_while_slow(world: World, node: SimulatedNode) -> Stop:
    """Many answers are late, though none so late that it is given up."""
    world.network.delay, world.network.delay_max_s = 0.4, 0.2
    world.run(world.now + 1.0)
    files = node.crash()
    world.network.delay = 0.0
    return lambda: node.start(files=files)


def _noise(world: World, kind: str) -> Stop:
    network = world.network

    def stop() -> None:
        network.loss = network.delay = network.duplicate = 0.0

    network.delay_max_s = 2.0 if kind == "heavy delay" else 0.6
    match kind:
        case "heavy drop":
            network.loss = world.random.choice((0.1, 0.3))
        case "heavy delay":
            network.delay = world.random.choice((0.05, 0.3))
        case "drop":
            network.loss = world.random.choice((0.01, 0.05))
        case "delay":
            network.delay = world.random.choice((0.02, 0.1))
        case "duplicate":
            network.duplicate = 0.5
    return stop


def duration(world: World, kind: str) -> float:
    low, high = DURATION_S.get(kind, (0.5, 8.0))
    return world.random.uniform(low, high)


def healthy(world: World) -> str | None:
    """What is still being repaired, or None."""
    for node in world.nodes.values():
        if not node.up or node.paused or not node.keeper.synced:
            return f"{node.name} has not synced"
        view = node.keeper.view()
        if not world.nodes.keys() <= view.members.keys() or not view.converged:
            return f"{view}"
        for other in world.nodes:
            if other != node.name and node.store is not None and node.store.hint_count(other):
                return f"{node.name} has hints for {other}"
    return None
