"""The options in force of each container, from its arguments."""

CONTAINERS = ("configuration", "registry", "cleanup", "cleanup-wait")


def parse(arguments):
    """Options by name: the text of `--name=value`, or the list of what follows `--name`."""
    options, current = {}, None
    for argument in arguments:
        if argument.startswith("--"):
            name, given, value = argument[2:].partition("=")
            assert name not in options, f"--{name} is given twice"
            options[name] = value if given else []
            current = None if given else options[name]
        else:
            assert current is not None, f"'{argument}' belongs to no option"
            current.append(argument)
    return options


def pod_specs(items):
    """The pod of every object that has one."""
    for item in items:
        if item["kind"] == "DaemonSet":
            yield item["spec"]["template"]["spec"]
        elif item["kind"] == "Pod":
            yield item["spec"]


def flags(items):
    """The options of the containers that both charts have, by the container's name."""
    found = {}
    for spec in pod_specs(items):
        for container in spec.get("initContainers", []) + spec["containers"]:
            if container["name"] in CONTAINERS:
                command, *arguments = container["args"]
                assert command == container["name"]
                found[command] = parse(arguments)
    return {name: found[name] for name in CONTAINERS if name in found}
