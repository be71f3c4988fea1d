"""What the questions of open_qa are made from: well-known facts that do not change."""

from __future__ import annotations

ELEMENTS = """
H hydrogen;He helium;Li lithium;Be beryllium;B boron;C carbon;N nitrogen;O oxygen;F fluorine;Ne neon;Na sodium;
Mg magnesium;Al aluminium;Si silicon;P phosphorus;S sulfur;Cl chlorine;Ar argon;K potassium;Ca calcium;Sc scandium;
Ti titanium;V vanadium;Cr chromium;Mn manganese;Fe iron;Co cobalt;Ni nickel;Cu copper;Zn zinc;Ga gallium;Ge germanium;
As arsenic;Se selenium;Br bromine;Kr krypton;Rb rubidium;Sr strontium;Y yttrium;Zr zirconium;Nb niobium;Mo molybdenum;
Tc technetium;Ru ruthenium;Rh rhodium;Pd palladium;Ag silver;Cd cadmium;In indium;Sn tin;Sb antimony;Te tellurium;
I iodine;Xe xenon;Cs caesium;Ba barium;La lanthanum;Ce cerium;Pr praseodymium;Nd neodymium;Pm promethium;Sm samarium;
Eu europium;Gd gadolinium;Tb terbium;Dy dysprosium;Ho holmium;Er erbium;Tm thulium;Yb ytterbium;Lu lutetium;Hf hafnium;
Ta tantalum;W tungsten;Re rhenium;Os osmium;Ir iridium;Pt platinum;Au gold;Hg mercury;Tl thallium;Pb lead;Bi bismuth;
Po polonium;At astatine;Rn radon
"""
"""Symbol and name, by atomic number from 1."""
SPELLINGS = {"aluminium": "aluminum", "sulfur": "sulphur", "caesium": "cesium"}

COUNTRIES = """
Albania Tirana lek;Armenia Yerevan dram;Azerbaijan Baku manat;Bangladesh Dhaka taka;Botswana Gaborone pula;
Brazil Brasília real;Cambodia Phnom_Penh riel;China Beijing renminbi;Costa_Rica San_José colón;
Denmark Copenhagen Danish_krone;Ethiopia Addis_Ababa birr;Georgia Tbilisi lari;Ghana Accra cedi;
Guatemala Guatemala_City quetzal;Haiti Port-au-Prince gourde;Honduras Tegucigalpa lempira;Hungary Budapest forint;
Iceland Reykjavík Icelandic_króna;Japan Tokyo yen;Kazakhstan Astana tenge;Laos Vientiane kip;Lesotho Maseru loti;
Malaysia Kuala_Lumpur ringgit;Mongolia Ulaanbaatar tögrög;Morocco Rabat Moroccan_dirham;Myanmar Naypyidaw kyat;
Nigeria Abuja naira;Norway Oslo Norwegian_krone;Papua_New_Guinea Port_Moresby kina;Paraguay Asunción guaraní;
Peru Lima sol;Poland Warsaw złoty;Romania Bucharest Romanian_leu;Sweden Stockholm Swedish_krona;Thailand Bangkok baht;
Tonga Nuku'alofa paʻanga;Ukraine Kyiv hryvnia;Uzbekistan Tashkent som;Vietnam Hanoi đồng;Zambia Lusaka kwacha
"""
"""Name, capital and a currency that is no other's here, as they have long been."""
CAPITALS = {
    "Brasília": ("Brasilia",),
    "San José": ("San Jose",),
    "Reykjavík": ("Reykjavik",),
    "Asunción": ("Asuncion",),
    "Kyiv": ("Kiev",),
    "Astana": ("Nur-Sultan",),
    "Ulaanbaatar": ("Ulan Bator",),
    "Naypyidaw": ("Nay Pyi Taw",),
    "Nuku'alofa": ("Nukuʻalofa", "Nukualofa", "Nuku’alofa"),
}

TERMS = """
A polygon with eight sides|octagon
The process by which plants make sugar from light, water and carbon dioxide|photosynthesis
An animal that eats only plants|herbivore
The line on which the day is as long as the night all year|equator|the equator
Molten rock that has reached the surface of the Earth|lava
The instrument that measures air pressure|barometer
The organ that pumps blood through the body|heart|the heart
The star at the centre of the solar system|Sun|the sun
The study of the weather|meteorology
The longest side of a right triangle|hypotenuse|the hypotenuse
The change of a gas into a liquid|condensation
A number greater than one that only one and itself divide|prime|prime number
The pigment that makes leaves green|chlorophyll
The force that pulls things towards the Earth|gravity|gravitation
A word that means the opposite of another|antonym
The distance round a circle|circumference
The protein in red blood cells that carries oxygen|haemoglobin|hemoglobin
The change of a solid into a gas without becoming a liquid|sublimation
The part of a cell where most of its energy is released|mitochondrion|mitochondria
The property of a metal that lets it be drawn into wire|ductility
The bending of light as it passes from one medium into another|refraction
Animals without a backbone|invertebrates|invertebrate
The middle value of an ordered list of numbers|median|the median
A rock formed by heat and pressure from another rock|metamorphic|metamorphic rock
The movement of water through a membrane that lets it pass, towards more solute|osmosis
The unit of electrical resistance|ohm|ohms
A government by a few|oligarchy
A word formed from the letters of another in another order|anagram
The layer of air closest to the ground|troposphere|the troposphere
The line that a curve approaches without meeting it|asymptote
The study of fungi|mycology
The tendency of a body to keep its state of motion|inertia
The quantity whose change tells whether heat can flow by itself, a measure of disorder|entropy
A substance that speeds up a reaction and is not used up|catalyst
The point of an orbit round the Sun that is nearest to it|perihelion
A molecule that is the mirror image of another and cannot be laid on it|enantiomer
The programming technique in which a function calls itself|recursion
The branch of linguistics that studies the sounds of a language as a system|phonology
The figure of speech in which a part stands for the whole|synecdoche
The division of a cell nucleus that halves the number of chromosomes|meiosis
The study of the causes of diseases|aetiology|etiology
The number of independent rows of a matrix|rank|its rank
The apparent shift of an object when the observer moves|parallax
A market with a single buyer|monopsony
The hormone that lowers blood sugar|insulin
"""
"""Definition, term in the shortest form, and other forms; the first third is easy, the last one hard."""

WORKS = """
Hamlet|Shakespeare|William Shakespeare
Don Quixote|Cervantes|Miguel de Cervantes
War and Peace|Tolstoy|Leo Tolstoy|Lev Tolstoy
Pride and Prejudice|Austen|Jane Austen
Moby-Dick|Melville|Herman Melville
Frankenstein|Shelley|Mary Shelley|Mary Wollstonecraft Shelley
Oliver Twist|Dickens|Charles Dickens
The Odyssey|Homer
The Divine Comedy|Dante|Dante Alighieri
Crime and Punishment|Dostoevsky|Fyodor Dostoevsky|Dostoyevsky
Les Misérables|Hugo|Victor Hugo
Faust|Goethe|Johann Wolfgang von Goethe
Dracula|Stoker|Bram Stoker
Jane Eyre|Charlotte Brontë|Charlotte Bronte
Wuthering Heights|Emily Brontë|Emily Bronte
Madame Bovary|Flaubert|Gustave Flaubert
The Trial|Kafka|Franz Kafka
Ulysses|Joyce|James Joyce
Mrs Dalloway|Woolf|Virginia Woolf
The Magic Mountain|Thomas Mann
One Hundred Years of Solitude|García Márquez|Gabriel García Márquez|Garcia Marquez|Gabriel Garcia Marquez
Things Fall Apart|Achebe|Chinua Achebe
A Doll's House|Ibsen|Henrik Ibsen
The Cherry Orchard|Chekhov|Anton Chekhov
The Aeneid|Virgil|Vergil
Gulliver's Travels|Swift|Jonathan Swift
Robinson Crusoe|Defoe|Daniel Defoe
Candide|Voltaire
The Red and the Black|Stendhal
Middlemarch|George Eliot|Mary Ann Evans
Dead Souls|Gogol|Nikolai Gogol
Fathers and Sons|Turgenev|Ivan Turgenev
Buddenbrooks|Thomas Mann
The Master and Margarita|Bulgakov|Mikhail Bulgakov
The Tale of Genji|Murasaki Shikibu|Lady Murasaki
The Decameron|Boccaccio|Giovanni Boccaccio
Paradise Lost|Milton|John Milton
Effi Briest|Fontane|Theodor Fontane
The Betrothed|Manzoni|Alessandro Manzoni
Hunger|Hamsun|Knut Hamsun
Metamorphoses|Ovid
The Book of Disquiet|Pessoa|Fernando Pessoa
"""
"""Title, author in the shortest form that is enough, and other forms; from the best known on."""
