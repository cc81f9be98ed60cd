#include "ptx.h"

#include <cctype>
#include <cstdlib>
#include <map>
#include <tuple>
#include <unordered_map>

namespace ptxsim {
namespace {

unsigned bits_of_type(std::string const& type) {
  if (type == "pred") return 1;
  std::size_t const digits = type.find_first_of("0123456789");
  unsigned const bits = digits == std::string::npos ? 0 : static_cast<unsigned>(std::atoi(type.c_str() + digits));
  if (bits == 0) throw Fault("PTX: unknown type ." + type);
  return type.find('x', digits) == std::string::npos ? bits : 2 * bits;  // f16x2
}

// Words (opcodes, names, directives), numbers and single characters.
class Lexer {
 public:
  explicit Lexer(std::string const& text) : text_(text) { next(); }

  std::string const& peek() const { return token_; }
  std::string take() {
    std::string token = std::move(token_);
    next();
    return token;
  }
  bool accept(char const* token) {
    if (token_ != token) return false;
    next();
    return true;
  }
  void expect(char const* token) {
    if (!accept(token)) fail(std::string("expected '") + token + "', found '" + token_ + "'");
  }
  bool at_end() const { return token_.empty(); }
  [[noreturn]] void fail(std::string const& what) const {
    std::size_t line = 1;
    for (std::size_t i = 0; i < position_ && i < text_.size(); ++i) line += text_[i] == '\n' ? 1 : 0;
    throw Fault("PTX line " + std::to_string(line) + ": " + what);
  }

 private:
  static bool is_word(char c) {
    return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_' || c == '$' || c == '%' || c == '.';
  }

  void next() {
    skip_blanks();
    std::size_t const begin = position_;
    if (begin >= text_.size()) {
      token_.clear();
      return;
    }
    if (text_[begin] == '"') {
      std::size_t const end = text_.find('"', begin + 1);
      if (end == std::string::npos) fail("a string without end");
      position_ = end + 1;
    } else if (is_word(text_[begin])) {
      while (position_ < text_.size() && is_word(text_[position_])) ++position_;
    } else {
      ++position_;
    }
    token_ = text_.substr(begin, position_ - begin);
  }

  void skip_blanks() {
    for (;;) {
      while (position_ < text_.size() && std::isspace(static_cast<unsigned char>(text_[position_])) != 0) ++position_;
      if (text_.compare(position_, 2, "//") == 0) {
        position_ = std::min(text_.find('\n', position_), text_.size());
      } else if (text_.compare(position_, 2, "/*") == 0) {
        std::size_t const end = text_.find("*/", position_);
        position_ = end == std::string::npos ? text_.size() : end + 2;
      } else {
        return;
      }
    }
  }

  std::string const& text_;
  std::size_t position_ = 0;
  std::string token_;
};

class Parser {
 public:
  explicit Parser(std::string const& text) : lexer_(text) {}

  Module module() {
    while (!lexer_.at_end()) {
      if (lexer_.accept(".file")) {
        file();
      } else if (lexer_.accept(".version") || lexer_.accept(".target")) {
        do lexer_.take();
        while (lexer_.accept(","));
      } else if (lexer_.accept(".address_size")) {
        if (lexer_.take() != "64") lexer_.fail("addresses of other than 64 bits");
      } else if (lexer_.accept(".section")) {
        while (lexer_.take() != "{") {
        }
        while (lexer_.take() != "}") {
        }
      } else if (lexer_.accept(".visible") || lexer_.accept(".weak") || lexer_.accept(".extern")) {
        // linkage: nothing is linked
      } else if (lexer_.accept(".entry")) {
        kernel();
      } else if (lexer_.peek() == ".func") {
        lexer_.fail("functions (.func) are not supported; have them inlined");
      } else {
        module_.variables.push_back(variable());
      }
    }
    return std::move(module_);
  }

 private:
  void file() {
    auto const number = static_cast<std::size_t>(std::stoul(lexer_.take()));
    std::string const name = lexer_.take();
    if (module_.files.size() <= number) module_.files.resize(number + 1);
    module_.files[number] = name.substr(1, name.size() - 2);
    while (lexer_.accept(",")) lexer_.take();
  }

  // .shared .align 4 .b8 name[12] = {1, 2}
  Variable variable() {
    Variable result;
    std::string const space = lexer_.take();
    if (space == ".shared") {
      result.space = Space::kShared;
    } else if (space == ".local") {
      result.space = Space::kLocal;
    } else if (space == ".param") {
      result.space = Space::kParam;
    } else if (space == ".const") {
      result.space = Space::kConst;
    } else if (space != ".global") {
      lexer_.fail("unknown directive " + space);
    }
    std::uint64_t element = 0;
    while (lexer_.peek().front() == '.') {
      std::string const word = lexer_.take();
      if (word == ".align") {
        result.align = std::stoull(lexer_.take());
      } else if (word == ".ptr" || word == ".global" || word == ".shared") {
        // what a parameter points to
      } else {
        element = bits_of_type(word.substr(1)) / 8;
      }
    }
    result.align = std::max(result.align, element);
    result.name = lexer_.take();
    result.bytes = element;
    while (lexer_.accept("[")) {
      result.is_dynamic = lexer_.peek() == "]";
      result.bytes *= result.is_dynamic ? 0 : std::stoull(lexer_.take());
      lexer_.expect("]");
    }
    if (lexer_.accept("=")) initialise(result, element);
    if (result.space != Space::kParam) lexer_.expect(";");
    return result;
  }

  void initialise(Variable& variable, std::uint64_t element) {
    bool const is_list = lexer_.accept("{");
    do {
      std::uint64_t const bits = operand().bits;
      for (std::uint64_t i = 0; i < element; ++i) {
        variable.initial.push_back(static_cast<std::uint8_t>(bits >> 8 * i));
      }
    } while (lexer_.accept(","));
    if (is_list) lexer_.expect("}");
  }

  void kernel() {
    module_.kernels.emplace_back();
    kernel_ = &module_.kernels.back();
    kernel_->name = lexer_.take();
    scopes_.assign(1, {});
    location_ = kNoLocation;
    numbers_.clear();
    if (lexer_.accept("(")) {
      while (!lexer_.accept(")")) {
        kernel_->parameters.push_back(variable());
        lexer_.accept(",");
      }
    }
    while (lexer_.peek() != "{") {
      std::string const directive = lexer_.take();
      std::uint64_t product = 1;
      do product *= std::stoull(lexer_.take());
      while (lexer_.accept(","));
      if (directive == ".maxntid" || directive == ".reqntid") kernel_->most_threads = product;
    }
    lexer_.expect("{");
    body();
  }

  void body() {
    for (;;) {
      if (lexer_.accept("}")) {
        scopes_.pop_back();
        if (scopes_.empty()) return;
      } else if (lexer_.accept("{")) {
        scopes_.emplace_back();
      } else if (lexer_.accept(".reg")) {
        declare();
      } else if (lexer_.accept(".loc")) {
        location();
      } else if (lexer_.accept(".pragma")) {
        while (lexer_.take() != ";") {
        }
      } else if (lexer_.peek().front() == '.') {
        kernel_->variables.push_back(variable());
      } else if (!lexer_.accept(";")) {
        statement();
      }
    }
  }

  // .reg .b32 %r<12>, %temp;
  void declare() {
    unsigned const bits = bits_of_type(lexer_.take().substr(1));
    do {
      std::string const name = lexer_.take();
      bool const is_family = lexer_.accept("<");
      scopes_.back()[is_family ? name + "<" : name] = {bits, -1};
      if (is_family) {
        lexer_.take();
        lexer_.expect(">");
      }
    } while (lexer_.accept(","));
    lexer_.expect(";");
  }

  // .loc file line column[, function_name label[+n], inlined_at file line column]
  // A caller's own callers are those that its latest .loc had.
  void location() {
    Location location = position();
    while (lexer_.accept(",")) {
      bool const is_call = lexer_.accept("inlined_at");
      if (is_call) {
        Location const caller = position();
        location.caller = numbers_.insert({key(caller), kNoLocation}).first->second;
        if (location.caller == kNoLocation) location.caller = number(caller);
      } else {
        lexer_.take();
        lexer_.take();
        if (lexer_.accept("+")) lexer_.take();
      }
    }
    location_ = number(location);
  }
  Location position() {
    Location location;
    location.file = static_cast<std::uint32_t>(std::stoul(lexer_.take()));
    location.line = static_cast<std::uint32_t>(std::stoul(lexer_.take()));
    location.column = static_cast<std::uint32_t>(std::stoul(lexer_.take()));
    return location;
  }
  using Key = std::tuple<std::uint32_t, std::uint32_t, std::uint32_t>;
  static Key key(Location const& location) { return {location.file, location.line, location.column}; }
  std::uint32_t number(Location const& location) {
    std::uint32_t& latest = numbers_[key(location)];
    module_.locations.push_back(location);
    return latest = static_cast<std::uint32_t>(module_.locations.size() - 1);
  }

  void statement() {
    Statement result;
    result.location = location_;
    if (lexer_.accept("@")) {
      result.guard_negated = lexer_.accept("!");
      result.guard = find_register(lexer_.take());
      if (result.guard < 0) lexer_.fail("a guard that is no register");
    }
    std::string const opcode = lexer_.take();
    if (lexer_.accept(":")) {
      kernel_->labels.emplace_back(opcode, static_cast<std::uint32_t>(kernel_->statements.size()));
      return;
    }
    for (std::size_t begin = 0; begin <= opcode.size();) {
      std::size_t const end = std::min(opcode.find('.', begin), opcode.size());
      result.opcode.push_back(opcode.substr(begin, end - begin));
      begin = end + 1;
    }
    while (!lexer_.accept(";")) {
      result.operands.push_back(operand());
      if (lexer_.accept("|")) {
        Operand pair;
        pair.kind = Operand::Kind::kPair;
        pair.parts = {result.operands.back(), operand()};
        result.operands.back() = pair;
      }
      lexer_.accept(",");
    }
    kernel_->statements.push_back(std::move(result));
  }

  Operand operand() {
    Operand result;
    if (lexer_.accept("{") || lexer_.peek() == "[") {
      bool const is_address = lexer_.accept("[");
      result.kind = is_address ? Operand::Kind::kAddress : Operand::Kind::kList;
      while (!lexer_.accept(is_address ? "]" : "}")) {
        if (is_address && lexer_.accept("+")) {
          result.offset = static_cast<std::int64_t>(operand().bits);
        } else {
          result.parts.push_back(operand());
        }
        lexer_.accept(",");
      }
      return result;
    }
    result.negated = lexer_.accept("!");
    bool const is_negative = lexer_.accept("-");
    std::string const word = lexer_.take();
    if (std::isdigit(static_cast<unsigned char>(word.front())) != 0) {
      result.kind = Operand::Kind::kNumber;
      result.bits = number(word);
      if (is_negative) result.bits = ~result.bits + 1;
    } else if (word == "_") {
      result.kind = Operand::Kind::kSink;
    } else if (std::int64_t const found = find_register(word); found >= 0) {
      result.kind = Operand::Kind::kRegister;
      result.register_ = static_cast<std::uint32_t>(found);
    } else {
      result.kind = word.front() == '%' || word == "WARP_SZ" ? Operand::Kind::kSpecial : Operand::Kind::kSymbol;
      result.name = word;
    }
    return result;
  }

  // 0f and 0d are followed by the bits of a float or double.
  std::uint64_t number(std::string const& word) const {
    char const kind = word.size() > 2 ? static_cast<char>(std::tolower(static_cast<unsigned char>(word[1]))) : '\0';
    try {
      if (word[0] == '0' && (kind == 'f' || kind == 'd')) return std::stoull(word.substr(2), nullptr, 16);
      return std::stoull(word, nullptr, 0);
    } catch (std::exception const&) {
      lexer_.fail("'" + word + "' is no number");
    }
  }

  std::int64_t find_register(std::string const& name) {
    std::string const family = name.substr(0, name.find_last_not_of("0123456789") + 1) + "<";
    for (auto scope = scopes_.rbegin(); scope != scopes_.rend(); ++scope) {
      auto found = scope->find(name);
      if (found == scope->end()) {
        auto const declared = scope->find(family);
        if (declared == scope->end()) continue;
        found = scope->insert({name, {declared->second.bits, -1}}).first;
      }
      Declared& declared = found->second;
      if (declared.number < 0) {
        declared.number = static_cast<std::int64_t>(kernel_->registers.size());
        kernel_->registers.push_back({name, declared.bits});
      }
      return declared.number;
    }
    return -1;
  }

  struct Declared {
    unsigned bits;
    std::int64_t number;  // -1 until it is used
  };

  Lexer lexer_;
  Module module_;
  Kernel* kernel_ = nullptr;
  std::vector<std::unordered_map<std::string, Declared>> scopes_;
  std::uint32_t location_ = kNoLocation;
  std::map<Key, std::uint32_t> numbers_;  // of the latest location at a place
};

}  // namespace

Module parse(std::string const& text) { return Parser(text).module(); }

}  // namespace ptxsim
