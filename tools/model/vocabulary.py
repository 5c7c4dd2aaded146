"""The class nouns that people use, and which names of emoji they stand for."""

import re

from tools.model.names import Group

# Pattern of the name, and the nouns it may be called by.
_NOUNS = tuple(
    (re.compile(pattern), tuple(nouns.split(", ")))
    for pattern, nouns in (
        (r"\brobot", "robot"),
        (r"\bzombie", "zombie"),
        (r"\bghost", "ghost"),
        (r"\balien", "alien, monster"),
        (r"\b(ogre|goblin|monster)", "monster"),
        (r"\b(dog|poodle)\b", "dog"),
        (r"\b(cat)\b", "cat"),
        (r"automobile|racing car|sport utility|taxi|police car|oncoming (auto|police|taxi)", "car"),
        (r"sport utility|pickup", "car, truck"),
        (r"(evergreen|deciduous|palm|christmas|leafless|^tanabata) tree", "tree"),
        (r"\btruck|lorry", "truck"),
        (r"\bbus\b|trolleybus|minibus", "bus"),
        (r"locomotive|\btrain\b|bullet train|high-speed|metro|tram\b", "train"),
        (r"\b(ship|boat|sailboat|canoe|ferry)\b|speedboat", "boat"),
        (r"airplane", "airplane, plane"),
        (r"\bhorse\b", "horse"),
        (r"\bbear\b", "bear"),
        (r"teddy bear", "teddy bear, toy, stuffed animal, plush toy"),
        (r"\brabbit", "rabbit"),
        (r"\bmouse face|^mouse|\brat\b", "mouse"),
        (r"\bcow|\box\b|water buffalo", "cow"),
        (r"\bpig|boar", "pig"),
        (r"\bmonkey|gorilla|orangutan", "monkey"),
        (
            r"\bbird|eagle|dove|parrot|chick|rooster|chicken|turkey|duck|swan|goose|peacock"
            r"|phoenix|black bird|owl",
            "bird",
        ),
        (r"\bfish\b|tropical fish|blowfish|shark", "fish"),
        (r"whale", "whale"),
        (r"sauropod|t-rex", "dinosaur"),
        (r"dragon", "dragon"),
        (
            r"ladybug|lady beetle|beetle|ant\b|honeybee|cricket|cockroach|mosquito|fly\b",
            "insect, bug",
        ),
        (r"honeybee", "bee"),
        (r"\b(house|derelict house)\b|house with garden", "house"),
        (r"castle", "castle"),
        (
            r"rose|tulip|sunflower|blossom|hibiscus|daisy|bouquet|cherry blossom|lotus|hyacinth",
            "flower",
        ),
        (r"\b(shoe|boot|sandal|sneaker)\b", "shoe"),
        (r"running shoe", "sneaker, shoe"),
        (r"\bhat\b|\bcap\b|helmet", "hat"),
        (r"backpack", "backpack, bag"),
        (r"handbag|clutch bag|shopping bags|pouch|luggage", "bag"),
        (r"glasses|goggles", "glasses"),
        (r"sunglasses$", "sunglasses, glasses"),
        (r"clock\b|watch$|watch\b|stopwatch", "clock"),
        (r"cup\b|hot beverage|teacup|mug", "cup"),
        (r"beer mug", "beer"),
        (r"teapot", "teapot"),
        (r"bottle|champagne", "bottle"),
        (r"bowl", "bowl"),
        (r"amphora|urn", "vase"),
        (r"candle", "candle"),
        (r"\bcake|cupcake", "cake"),
        (r"red apple|green apple", "apple"),
        (r"ball\b|baseball|basketball|volleyball|softball", "ball"),
        (r"\bbook\b|books|notebook|ledger", "book"),
        (r"rocket", "rocket, spaceship"),
        (r"flying saucer", "ufo, spaceship"),
        (r"bicycle", "bicycle, bike"),
        (r"motorcycle|motor scooter", "motorcycle, bike"),
        (r"guitar", "guitar"),
        (r"computer|laptop", "computer"),
        (r"phone\b", "phone"),
        (r"\bkey\b", "key"),
        (r"umbrella", "umbrella"),
        (r"crown", "crown"),
        (r"chair|couch", "chair"),
        (r"\bbed\b", "bed"),
        (r"lamp|light bulb|flashlight|lantern", "lamp"),
        (r"snowman", "snowman"),
        (r"santa|mrs\. claus|claus", "santa, person"),
        (r"mushroom", "mushroom"),
        (r"hamburger", "burger"),
        (r"pizza", "pizza"),
        (r"doll|nesting|pinata|kokeshi|yo-yo|balloon|kite", "toy"),
        (r"turtle", "turtle"),
        (r"frog", "frog"),
        (r"fox", "fox"),
        (r"wolf", "wolf"),
        (r"lion", "lion"),
        (r"tiger", "tiger"),
        (r"panda", "panda, bear"),
        (r"penguin", "penguin"),
        (r"heart", "heart"),
        (r"star\b", "star"),
        (r"pumpkin|jack-o", "pumpkin"),
        (r"vampire", "vampire"),
        (r"mage|wizard", "wizard"),
        (r"fairy", "fairy"),
        (r"elf$", "elf"),
        (r"mermaid|merman|merperson", "mermaid"),
        (r"genie", "genie"),
        (r"superhero", "superhero"),
        (r"supervillain", "villain"),
        (r"princess", "princess"),
        (r"prince$", "prince"),
        (r"astronaut", "astronaut"),
        (r"ninja", "ninja"),
        (r"skull", "skull"),
        (r"clown", "clown"),
        (r"\bdevil|imp\b|horns", "devil, monster"),
    )
)
_PERSON = re.compile(
    r"\b(person|people|man|woman|boy|girl|child|baby|older|adult|mrs|guard|detective"
    r"|construction worker|cook|farmer|judge|teacher|student|singer|artist|pilot|astronaut"
    r"|firefighter|police officer|prince|princess|superhero|supervillain|mage|elf|fairy"
    r"|health worker|office worker|mechanic|scientist|technologist|factory worker|adventurer"
    r"|hiker|ninja|santa|troll|runner|running|walking|standing|kneeling)\b"
)
_BODY_PART = re.compile(
    r"^(hand|.*(hand|finger|fist|thumb|palm|gesture|biceps|foot|leg|ear|nose|eye|mouth|lip|tongue"
    r"|tooth|bone|brain|lung|heart|selfie|nail|writing|victory|pinch|clapping|wave|silhouette"
    r"|footprint|fingerprint|point|handshake|bust|speaking))"
)
_MISLEADING = re.compile(
    "hot dog|dog ?eaten|cat ?fish|bus stop|horse racing|fish cake|fishing|moon|teddy|bear(d|ding)"
)
_NOT_MEANT = {"dog", "bus", "horse", "fish", "bear"}


def class_nouns(name: str, group: Group) -> tuple[str, ...]:
    """What someone would call the thing of that name; often nothing."""
    nouns = [
        noun
        for pattern, found in _NOUNS
        if pattern.search(name) and not (group in (Group.FACE, Group.SYMBOL) and found[0] == "cat")
        for noun in found
    ]
    if group is Group.FACE and re.search(r"\bcat\b", name):
        nouns.append("cat")
    nouns += _person_nouns(name, group)
    if _MISLEADING.search(name):
        nouns = [noun for noun in nouns if noun not in _NOT_MEANT]
    if re.search("maple|shamrock|herb", name):
        nouns += ["leaf", "plant"]
    if "car light" in name:
        nouns = [noun for noun in nouns if noun != "car"]
    return tuple(dict.fromkeys(nouns))


def is_body_part(name: str, group: Group) -> bool:
    """Whether it is a hand or the like rather than a person."""
    return group is Group.PERSON and bool(_BODY_PART.match(name))


def _person_nouns(name: str, group: Group) -> list[str]:
    if group is not Group.PERSON or is_body_part(name, group) or not _PERSON.search(name):
        return []
    nouns = ["person"]
    if re.search(r"\b(man|boy|father|grandfather|mr)\b", name):
        nouns.append("man")
    if re.search(r"\b(woman|girl|mother|grandmother|mrs|princess)\b", name):
        nouns.append("woman")
    return nouns
