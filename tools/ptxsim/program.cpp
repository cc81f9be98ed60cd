#include "program.h"

#include <algorithm>
#include <functional>

namespace ptxsim {
namespace {

struct TypeName {
  char const* name;
  Type type;
  unsigned bytes;
};
constexpr TypeName kTypes[] = {
    {"b8", Type::kB8, 1},       {"b16", Type::kB16, 2}, {"b32", Type::kB32, 4}, {"b64", Type::kB64, 8},
    {"u8", Type::kU8, 1},       {"u16", Type::kU16, 2}, {"u32", Type::kU32, 4}, {"u64", Type::kU64, 8},
    {"s8", Type::kS8, 1},       {"s16", Type::kS16, 2}, {"s32", Type::kS32, 4}, {"s64", Type::kS64, 8},
    {"f16", Type::kF16, 2},     {"f32", Type::kF32, 4}, {"f64", Type::kF64, 8}, {"pred", Type::kPred, 0},
    {"f16x2", Type::kF16x2, 4},
};

std::map<std::string, Special> const& special_names() {
  static std::map<std::string, Special> const names = {
      {"%tid.x", Special::kTidX},
      {"%tid.y", Special::kTidY},
      {"%tid.z", Special::kTidZ},
      {"%ntid.x", Special::kNtidX},
      {"%ntid.y", Special::kNtidY},
      {"%ntid.z", Special::kNtidZ},
      {"%ctaid.x", Special::kCtaidX},
      {"%ctaid.y", Special::kCtaidY},
      {"%ctaid.z", Special::kCtaidZ},
      {"%nctaid.x", Special::kNctaidX},
      {"%nctaid.y", Special::kNctaidY},
      {"%nctaid.z", Special::kNctaidZ},
      {"%laneid", Special::kLaneid},
      {"%warpid", Special::kWarpid},
      {"%nwarpid", Special::kNwarpid},
      {"%lanemask_eq", Special::kLanemaskEq},
      {"%lanemask_le", Special::kLanemaskLe},
      {"%lanemask_lt", Special::kLanemaskLt},
      {"%lanemask_ge", Special::kLanemaskGe},
      {"%lanemask_gt", Special::kLanemaskGt},
      {"%dynamic_smem_size", Special::kDynamicSmem},
  };
  return names;
}

// Registers to rows. One that a stretch of code without labels and branches sets before it reads it, and that nothing
// else names, gives its row back after its last use: the files of large kernels shrink to what a cache holds.
class Rows {
 public:
  explicit Rows(Kernel const& kernel) : kernel_(kernel), uses_(kernel.registers.size()), rows_(uses_.size(), kNone) {
    std::vector<bool> starts(kernel.statements.size() + 1);
    for (auto const& label : kernel.labels) starts[label.second] = true;
    std::uint32_t stretch = 0;
    for (std::uint32_t i = 0; i < kernel.statements.size(); ++i) {
      Statement const& statement = kernel.statements[i];
      stretch += starts[i] ? 1 : 0;
      if (statement.guard >= 0) note(static_cast<std::uint32_t>(statement.guard), i, stretch, false);
      bool const sets = statement.guard < 0 && statement.opcode[0] != "st" && statement.opcode[0] != "red";
      // Sources first: `add %r1, %r1, 1` reads before it sets.
      for (std::size_t n = statement.operands.size(); n-- > 0;)
        visit(statement.operands[n], i, stretch, sets && n == 0);
      stretch += statement.opcode[0] == "bra" ? 1 : 0;
    }
  }

  // To be called for one statement after the other.
  std::uint32_t row(std::uint32_t number, std::uint32_t statement) {
    bool const wide = kernel_.registers[number].bits == 64;
    if (rows_[number] == kNone) {
      auto& free = free_[wide ? 1 : 0];
      if (!free.empty() && uses_[number].is_local) {
        rows_[number] = free.back();
        free.pop_back();
      } else {
        rows_[number] = reserve(wide);
      }
    }
    if (uses_[number].is_local && uses_[number].last == statement) ended_.push_back(number);
    return rows_[number];
  }
  void end_statement() {
    std::sort(ended_.begin(), ended_.end());
    ended_.erase(std::unique(ended_.begin(), ended_.end()), ended_.end());
    for (std::uint32_t number : ended_) free_[kernel_.registers[number].bits == 64 ? 1 : 0].push_back(rows_[number]);
    ended_.clear();
  }
  std::uint32_t reserve(bool wide) {
    std::uint32_t const row = words_;
    words_ += wide ? 2 * kLanes : kLanes;
    return row;
  }
  std::uint32_t words() const { return words_; }

 private:
  static constexpr std::uint32_t kNone = ~0U;
  struct Uses {
    bool seen = false, is_local = false;
    std::uint32_t stretch = 0, last = 0;
  };

  void visit(Operand const& operand, std::uint32_t statement, std::uint32_t stretch, bool sets) {
    if (operand.kind == Operand::Kind::kRegister) note(operand.register_, statement, stretch, sets);
    bool const is_address = operand.kind == Operand::Kind::kAddress;
    for (Operand const& part : operand.parts) visit(part, statement, stretch, sets && !is_address);
  }
  void note(std::uint32_t number, std::uint32_t statement, std::uint32_t stretch, bool sets) {
    Uses& uses = uses_[number];
    if (!uses.seen) uses = {true, sets, stretch, statement};
    uses.is_local = uses.is_local && uses.stretch == stretch;
    uses.last = statement;
  }

  Kernel const& kernel_;
  std::vector<Uses> uses_;
  std::vector<std::uint32_t> rows_, free_[2], ended_;
  std::uint32_t words_ = 0;
};

class Decoder {
 public:
  Decoder(Kernel const& kernel, Module const& module, Globals const& globals)
      : module_(module), globals_(globals), rows_(kernel) {
    program_.kernel = kernel;
    program_.files = module.files;
    program_.locations = module.locations;
  }

  Program program() {
    lay_out_variables();
    for (std::uint32_t r = 0; r < kernel().registers.size(); ++r) {
      if (kernel().registers[r].bits == 1) predicates_[r] = program_.predicates++;
    }
    program_.true_predicate = program_.predicates++;
    no_predicate_ = program_.predicates++;
    no_row_ = rows_.reserve(true);
    for (auto const& [name, statement] : kernel().labels) labels_[name] = statement;
    for (Statement const& statement : kernel().statements) {
      program_.code.push_back(instruction(statement));
      rows_.end_statement();
    }
    Instr end;
    end.kind = Kind::kExit;
    program_.code.push_back(end);
    program_.words = rows_.words();
    program_.executed.assign(program_.code.size(), 0);
    return std::move(program_);
  }

 private:
  Kernel const& kernel() const { return program_.kernel; }

  static std::uint32_t place_in(std::uint32_t& size, std::uint64_t align, std::uint64_t bytes) {
    std::uint32_t const offset = (size + static_cast<std::uint32_t>(align) - 1) / static_cast<std::uint32_t>(align) *
                                 static_cast<std::uint32_t>(align);
    size = offset + static_cast<std::uint32_t>(bytes);
    return offset;
  }

  void lay_out_variables() {
    for (Variable const& parameter : kernel().parameters) {
      std::uint32_t const offset = place_in(program_.parameters_size, parameter.align, parameter.bytes);
      program_.parameter_offsets.push_back(offset);
      program_.parameter_bytes.push_back(static_cast<std::uint32_t>(parameter.bytes));
      symbols_[parameter.name] = offset;
    }
    for (auto const* variables : {&kernel().variables, &module_.variables}) {
      for (Variable const& variable : *variables) {
        bool const is_shared = variable.space == Space::kShared;
        if (variable.is_dynamic || (!is_shared && variable.space != Space::kLocal)) continue;
        if (variables == &module_.variables && !is_used(variable.name)) continue;
        std::uint32_t& size = is_shared ? program_.shared_size : program_.local_size;
        symbols_[variable.name] = place_in(size, variable.align, variable.bytes);
      }
    }
    program_.dynamic_shared = program_.shared_size;
    place_in(program_.dynamic_shared, 16, 0);
    for (Variable const& variable : module_.variables) {
      if (variable.is_dynamic) symbols_[variable.name] = program_.dynamic_shared;
    }
  }

  bool is_used(std::string const& name) const {
    std::function<bool(Operand const&)> const names = [&](Operand const& operand) {
      return operand.name == name || std::any_of(operand.parts.begin(), operand.parts.end(), names);
    };
    return std::any_of(kernel().statements.begin(), kernel().statements.end(), [&](Statement const& statement) {
      return std::any_of(statement.operands.begin(), statement.operands.end(), names);
    });
  }

  [[noreturn]] void fail(std::string const& what) const {
    throw Fault("PTX of " + kernel().name + ", " + Opcode(statement_->opcode).text() + ": " + what);
  }

  Instr instruction(Statement const& statement) {
    statement_ = &statement;
    index_ = static_cast<std::uint32_t>(&statement - kernel().statements.data());
    Instr instr;
    if (statement.guard >= 0) {
      instr.guard = static_cast<std::int32_t>(predicates_.at(static_cast<std::uint32_t>(statement.guard)));
      instr.guard_negated = statement.guard_negated;
    }
    Opcode const opcode(statement.opcode);
    if (opcode.name() == "bra") {
      instr.kind = Kind::kBranch;
      auto const label = labels_.find(statement.operands.at(0).name);
      if (label == labels_.end()) fail("there is no label " + statement.operands[0].name);
      instr.target = label->second;
      return instr;
    }
    if (opcode.name() == "ret" || opcode.name() == "exit") {
      instr.kind = Kind::kExit;
      return instr;
    }
    auto const is_list = [&](std::size_t i) {
      return i < statement.operands.size() && statement.operands[i].kind == Operand::Kind::kList;
    };
    instr.moves = is_list(0) ? Moves::kUnpack : is_list(1) ? Moves::kPack : Moves::kWhole;
    Form form;
    for (auto const find : {find_arithmetic, find_bits, find_conversion, find_access, find_meeting}) {
      form = find(opcode, instr);
      if (form.execute != nullptr) break;
    }
    if (form.execute == nullptr) fail("unknown opcode; tools/ptxsim has to learn it");
    instr.execute = form.execute;
    fill(instr, form, statement);
    return instr;
  }

  // An instruction whose operands are being filled in.
  struct Filling {
    Instr& instr;
    Form const& form;
    std::size_t destinations = 0, sources = 0;
  };

  void fill(Instr& instr, Form const& form, Statement const& statement) {
    Filling filling{instr, form};
    std::size_t given = 0;
    for (char const kind : form.operands) {
      if (kind == 'q') {  // the second of a pair of predicates, which may be absent
        Operand const& first = statement.operands[0];
        bool const is_pair = first.kind == Operand::Kind::kPair;
        instr.dst[filling.destinations++] = is_pair ? predicate(first.parts[1]) : no_predicate_;
        continue;
      }
      if (given >= statement.operands.size()) fail("too few operands");
      Operand const& operand = statement.operands[given++];
      fill_one(filling, kind, operand.kind == Operand::Kind::kPair ? operand.parts[0] : operand);
    }
    if (given != statement.operands.size()) fail("too many operands");
  }

  void fill_one(Filling& filling, char kind, Operand const& operand) {
    auto& [instr, form, destinations, sources] = filling;
    switch (kind) {
      case 'd':
        instr.dst[destinations++] = destination(operand, form.destination);
        instr.dst_wide = is_wide(operand, form.destination);
        break;
      case 'p':
        instr.dst[destinations++] = predicate(operand);
        break;
      case 'P':
        if (operand.negated || (operand.kind == Operand::Kind::kNumber && operand.bits == 0))
          instr.negated = static_cast<std::uint8_t>(instr.negated | 1U << sources);
        instr.src[sources++] = predicate(operand);
        break;
      case 's':
        instr.src_wide = is_wide(operand, form.source);
        instr.src[sources++] = source(operand, form.source);
        break;
      case 't':
        instr.src[sources++] = source(operand, form.destination);
        break;
      case 'i':
        instr.src[sources++] = source(operand, Type::kB32);
        break;
      case 'n':
        if (operand.kind != Operand::Kind::kNumber || operand.bits != 0) fail("a barrier other than number 0");
        break;
      case 'D':
      case 'S':
        fill_elements(filling, kind == 'D' ? 'd' : 's', operand);
        break;
      case 'a':
        address(instr, operand, sources++);
        break;
      default:
        fail("a form that decoding does not know");
    }
  }

  // One element, or a list of them.
  void fill_elements(Filling& filling, char kind, Operand const& operand) {
    bool const is_list = operand.kind == Operand::Kind::kList;
    std::size_t const count = is_list ? operand.parts.size() : 1;
    if (count > 4) fail("more than 4 elements");
    filling.instr.count = static_cast<std::uint8_t>(count);
    for (std::size_t i = 0; i < count; ++i) fill_one(filling, kind, is_list ? operand.parts[i] : operand);
  }

  bool is_wide(Operand const& operand, Type type) const {
    if (operand.kind == Operand::Kind::kRegister) return kernel().registers[operand.register_].bits == 64;
    return bytes_of(type) == 8;
  }

  std::uint32_t destination(Operand const& operand, Type type) {
    if (operand.kind == Operand::Kind::kSink) return no_row_;
    if (operand.kind != Operand::Kind::kRegister) fail("a destination that is no register");
    return checked_row(operand, type);
  }

  // A row is as wide as the operation takes it to be.
  std::uint32_t checked_row(Operand const& operand, Type type) {
    Register const& named = kernel().registers[operand.register_];
    if (named.bits == 1) fail(named.name + " is a predicate");
    if (bytes_of(type) == 8 && named.bits != 64)
      fail(named.name + " has " + std::to_string(named.bits) + " bits, not 64");
    return rows_.row(operand.register_, index_);
  }

  std::uint32_t source(Operand const& operand, Type type) {
    bool const wide = bytes_of(type) == 8;
    switch (operand.kind) {
      case Operand::Kind::kRegister:
        return checked_row(operand, type);
      case Operand::Kind::kNumber:
        return constant(operand.bits, wide);
      case Operand::Kind::kSymbol:
        return constant(symbol(operand.name), wide);
      case Operand::Kind::kSpecial:
        return operand.name == "WARP_SZ" ? constant(kLanes, wide) : special(operand.name, wide);
      default:
        fail("an operand of a kind that is not expected here");
    }
  }

  std::uint32_t predicate(Operand const& operand) {
    if (operand.kind == Operand::Kind::kSink) return no_predicate_;
    if (operand.kind == Operand::Kind::kNumber) return program_.true_predicate;  // negated for 0
    if (operand.kind != Operand::Kind::kRegister) fail("expected a predicate");
    return predicates_.at(operand.register_);
  }

  void address(Instr& instr, Operand const& operand, std::size_t place) {
    if (operand.kind != Operand::Kind::kAddress || operand.parts.size() != 1) fail("expected an address");
    Operand const& base = operand.parts[0];
    instr.offset = operand.offset;
    instr.address_wide = is_wide(base, Type::kB64);
    instr.src[place] = source(base, instr.address_wide ? Type::kB64 : Type::kB32);
  }

  std::uint64_t symbol(std::string const& name) const {
    auto const found = symbols_.find(name);
    if (found != symbols_.end()) return found->second;
    auto const global = globals_.find(name);
    if (global == globals_.end()) fail("there is no " + name);
    return global->second;
  }

  std::uint32_t constant(std::uint64_t bits, bool wide) {
    auto const [found, is_new] = constants_.insert({{bits, wide}, 0});
    if (is_new) {
      found->second = rows_.reserve(wide);
      program_.constants.push_back({found->second, wide, bits});
    }
    return found->second;
  }

  std::uint32_t special(std::string const& name, bool wide) {
    auto const found = special_names().find(name);
    if (found == special_names().end()) fail("unknown special register " + name);
    if (wide) fail(name + " has 32 bits");
    auto const [row, is_new] = specials_.insert({name, 0});
    if (is_new) {
      row->second = rows_.reserve(false);
      program_.specials.emplace_back(found->second, row->second);
    }
    return row->second;
  }

  Module const& module_;
  Globals const& globals_;
  Program program_;
  Rows rows_;
  Statement const* statement_ = nullptr;
  std::uint32_t index_ = 0, no_row_ = 0, no_predicate_ = 0;
  std::unordered_map<std::string, std::uint64_t> symbols_;
  std::unordered_map<std::string, std::uint32_t> labels_, specials_;
  std::unordered_map<std::uint32_t, std::uint32_t> predicates_;
  std::map<std::pair<std::uint64_t, bool>, std::uint32_t> constants_;
};

}  // namespace

unsigned bytes_of(Type type) {
  for (TypeName const& known : kTypes) {
    if (known.type == type) return known.bytes;
  }
  return 0;
}

bool is_signed(Type type) {
  return type == Type::kS8 || type == Type::kS16 || type == Type::kS32 || type == Type::kS64;
}

bool is_type(std::string const& name) {
  return std::any_of(std::begin(kTypes), std::end(kTypes), [&](TypeName const& known) { return name == known.name; });
}

Type type_of(std::string const& name) {
  for (TypeName const& known : kTypes) {
    if (name == known.name) return known.type;
  }
  throw Fault("PTX: unknown type ." + name);
}

bool Opcode::has(char const* word) const { return std::find(words_.begin(), words_.end(), word) != words_.end(); }

std::string Opcode::text() const {
  std::string text;
  for (std::string const& word : words_) text += (text.empty() ? "" : ".") + word;
  return text;
}

std::string Program::place(std::uint32_t pc) const {
  std::string file;
  std::uint32_t number = pc < kernel.statements.size() ? kernel.statements[pc].location : kNoLocation;
  for (; number != kNoLocation; number = locations[number].caller) {
    file = locations[number].file < files.size() ? files[locations[number].file] : "";
    auto const is_in = [&](char const* folder) { return file.find(folder) != std::string::npos; };
    bool const is_foreign = is_in("/targets/") || is_in("/usr/include/") || is_in("/nvidia/");
    if (!is_foreign || locations[number].caller == kNoLocation) break;
  }
  if (file.empty()) return "statement " + std::to_string(pc);
  return file.substr(file.rfind('/') + 1) + ":" + std::to_string(locations[number].line);
}

std::string Program::text(std::uint32_t pc) const {
  return pc < kernel.statements.size() ? Opcode(kernel.statements[pc].opcode).text() : "the end";
}

Program decode(Kernel const& kernel, Module const& module, Globals const& globals) {
  return Decoder(kernel, module, globals).program();
}

}  // namespace ptxsim
